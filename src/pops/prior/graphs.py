"""How an engine's steps are run: directly, or on CUDA as a recorded graph that is replayed.

A step at small batch is some hundred short kernels: launching them costs more than running them, and a replay launches
once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pops.prior.attention import MASKED, causal
from pops.prior.config import STEP

if TYPE_CHECKING:
    from torch import Tensor

    from pops.prior.adapter import Change
    from pops.prior.engine import Engine, Prefix

    Step = Callable[[Tensor, Tensor], Tensor]

GRAPHS = 16  # recorded graphs that an engine keeps, each with its buffers; the oldest is given up first


def graphed(engine: Engine, prefix: Prefix, changes: Sequence[Change | None]) -> Step:
    """(z [R, D], t [R]) -> x0 [R, D] after this prefix of R rows, each with its change."""
    if engine.device.type != "cuda":
        return direct(engine, prefix, changes)
    key = (prefix.kv.shape, prefix.hidden is None, tuple(changes))
    with engine.lock:
        if key not in engine.steps:
            engine.steps[key] = Recorded(direct_of(engine, changes), CudaGraph)
            while len(engine.steps) > GRAPHS:
                engine.steps.pop(next(iter(engine.steps)))
        recorded: Recorded = engine.steps[key]
    return recorded.bound(*buffers(engine, prefix))


def buffers(engine: Engine, prefix: Prefix) -> tuple[Tensor, Tensor]:
    """Keys and values with room for a step's own, and the mask of a step."""
    from torch.nn.functional import pad

    kv = pad(prefix.kv, (0, 0, 0, STEP))
    mask = causal(STEP, prefix.slots, engine.device)[None, None]
    if prefix.hidden is not None:
        mask = mask + pad(prefix.hidden, (0, STEP))[:, None, None] * MASKED
    return kv, mask


def direct_of(engine: Engine, changes: Sequence[Change | None]) -> Callable[..., Tensor]:
    """(z, t, kv, mask) -> x0, without gradients."""
    import torch

    rows = engine.rows(changes)

    def run(z: Tensor, t: Tensor, kv: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return engine.step(z, t, kv, mask, rows)

    return run


def direct(engine: Engine, prefix: Prefix, changes: Sequence[Change | None]) -> Step:
    """Every kernel launched in its turn."""
    kv, mask = buffers(engine, prefix)
    run = direct_of(engine, changes)
    return lambda z, t: run(z, t, kv, mask)


class CudaGraph:
    """Records a function without arguments; `replay` does again what it did, on the same memory."""

    def __init__(self, run: Callable[[], Tensor]) -> None:
        import torch

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm-up: what allocates or picks algorithms must not be recorded
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # other threads may go on
            self.result = run()

    def replay(self) -> Tensor:
        self.graph.replay()
        return self.result


class Recorded:
    """A function of tensors, recorded once for their shapes: arguments are copied into its own buffers, then replayed.

    One replay at a time: a lock keeps threads out of each other's buffers, from copying in to copying out.
    """

    def __init__(self, run: Callable[..., Tensor], record: Callable[[Callable[[], Tensor]], Any]) -> None:
        self.run, self.record = run, record
        self.lock = threading.Lock()
        self.buffers: tuple[Tensor, ...] | None = None
        self.tape: Any = None
        self.held: tuple[Tensor, ...] | None = None  # whose contents the constant buffers have now

    def bound(self, *constants: Tensor) -> Step:
        """The function with its last arguments fixed; they are copied in again only after another's turn."""

        def step(z: Tensor, t: Tensor) -> Tensor:
            with self.lock:
                if self.buffers is None:
                    self.buffers = tuple(x.clone() for x in (z, t, *constants))
                    self.tape = self.record(lambda: self.run(*self.buffers))  # type: ignore[misc]
                    self.held = None
                self.buffers[0].copy_(z)
                self.buffers[1].copy_(t)
                if self.held is not constants:
                    for mine, value in zip(self.buffers[2:], constants, strict=True):
                        mine.copy_(value)
                    self.held = constants
                result: Tensor = self.tape.replay().clone()
                return result

        return step
