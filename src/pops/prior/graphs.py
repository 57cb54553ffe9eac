"""How an engine's steps run: directly, or on CUDA as a recorded graph that is replayed.

A step of a small batch is some hundred short kernels: launching them takes longer than running them, and replaying a
graph launches them all with one call. A graph holds addresses, not values, so everything that differs between requests
(z, t, the prefix's keys and values, the mask) is copied into the graph's own buffers before a replay.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from pops.prior.attention import MASKED, causal
from pops.prior.config import STEP

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.adapter import Adapter
    from pops.prior.prefix import Prefix
    from pops.prior.rows import Rows

    Step = Callable[[Tensor, Tensor], Tensor]  # (z [R, D], t [R]) -> x0 [R, D]
    GraphKey = tuple[torch.Size, bool, tuple[Adapter | None, ...]]

MAX_GRAPHS = 16  # that an engine caches, each with its buffers; the oldest goes first


class Stepping(Protocol):
    """What a step needs of its engine."""

    lock: threading.Lock
    recorded: OrderedDict[GraphKey, Recorded]

    @property
    def device(self) -> torch.device: ...
    def rows(self, adapters: Sequence[Adapter | None]) -> Rows: ...
    def step(self, z: Tensor, t: Tensor, kv: Tensor, mask: Tensor, rows: Rows) -> Tensor: ...


def graphed(engine: Stepping, prefix: Prefix, adapters: Sequence[Adapter | None]) -> Step:
    """Returns (z [R, D], t [R]) -> x0 [R, D] after this prefix of R rows, each with its adapter or None.

    A graph is found again by all that its kernels and addresses depend on: the shape of the prefix, whether it has
    masked slots (which decides the mask's shape), and the adapters row by row (their weights are part of the graph, and
    the key keeps them alive).
    """
    if engine.device.type != "cuda":
        return direct(engine, prefix, adapters)
    key = (prefix.kv.shape, prefix.masked is None, tuple(adapters))
    with engine.lock:
        if key not in engine.recorded:
            engine.recorded[key] = Recorded(direct_of(engine, adapters), CudaGraph)
            while len(engine.recorded) > MAX_GRAPHS:
                engine.recorded.popitem(last=False)
        recorded = engine.recorded[key]
    return recorded.bound(*buffers(engine, prefix))


def buffers(engine: Stepping, prefix: Prefix) -> tuple[Tensor, Tensor]:
    """Returns the prefix's keys and values with room for a step's own, and a step's additive mask.

    The mask is [1 or R, 1, STEP, slots + STEP], float32.
    """
    from torch.nn.functional import pad

    kv = pad(prefix.kv, (0, 0, 0, STEP))
    mask = causal(STEP, prefix.slots, engine.device)[None, None]
    if prefix.masked is not None:
        mask = mask + pad(prefix.masked, (0, STEP))[:, None, None] * MASKED
    return kv, mask


def direct_of(engine: Stepping, adapters: Sequence[Adapter | None]) -> Callable[..., Tensor]:
    """Returns (z, t, kv, mask) -> x0, without gradients."""
    import torch

    rows = engine.rows(adapters)

    def run(z: Tensor, t: Tensor, kv: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return engine.step(z, t, kv, mask, rows)

    return run


def direct(engine: Stepping, prefix: Prefix, adapters: Sequence[Adapter | None]) -> Step:
    """Returns a step that launches its kernels one by one."""
    kv, mask = buffers(engine, prefix)
    run = direct_of(engine, adapters)
    return lambda z, t: run(z, t, kv, mask)


class Tape(Protocol):
    """A recorded function; `replay` runs it again on the same memory and returns the same result tensor, refilled."""

    def replay(self) -> Tensor: ...


class CudaGraph:
    """Records a function without arguments as a CUDA graph, a Tape."""

    def __init__(self, run: Callable[[], Tensor]) -> None:
        import torch

        # Warm-up on a stream of its own, as torch's notes on CUDA graphs ask: the first calls allocate, load kernels
        # and choose algorithms, none of which may happen while recording.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: by default a recording fails when *another* thread makes a call that is not allowed meanwhile,
        # such as an allocation; threads share an engine, so only this thread's calls may count.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.result = run()

    def replay(self) -> Tensor:
        self.graph.replay()
        return self.result


class Recorded:
    """A function of tensors, recorded on first use for their shapes, and replayed on its own copies of the arguments.

    One replay at a time: a lock keeps threads out of each other's buffers from copying in to copying out. Copies and
    replays run on the current stream, in the order of the calls, so nothing waits for the device.
    """

    def __init__(self, run: Callable[..., Tensor], record: Callable[[Callable[[], Tensor]], Tape]) -> None:
        self.run, self.record = run, record
        self.lock = threading.Lock()
        self.buffers: tuple[Tensor, ...] = ()  # z, t and the constants; allocated at the first step
        self.tape: Tape | None = None
        self.loaded: tuple[Tensor, ...] | None = None  # the constants whose values the buffers hold now

    def bound(self, *constants: Tensor) -> Step:
        """Returns the function with its last arguments fixed.

        They are copied only at the first step, and again after a step of another request (told apart by the identity of
        `constants`). A step may write to its buffer of keys and values, but only to slots that each step writes anew.
        """

        def step(z: Tensor, t: Tensor) -> Tensor:
            with self.lock:
                if self.tape is None:
                    self.buffers = tuple(x.clone() for x in (z, t, *constants))
                    self.tape = self.record(lambda: self.run(*self.buffers))
                    self.loaded = None
                self.buffers[0].copy_(z)
                self.buffers[1].copy_(t)
                if self.loaded is not constants:
                    for mine, value in zip(self.buffers[2:], constants, strict=True):
                        mine.copy_(value)
                    self.loaded = constants
                return self.tape.replay().clone()  # a copy: the next replay overwrites the tape's own result

        return step
