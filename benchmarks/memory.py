"""Peak memory of sampling once, each way in a fresh process that reads the prior from its folder.

`python -m benchmarks.memory JOB` is that process: it takes a JSON object and prints one. The peak is the largest
resident memory less what the imports took (for the public way including diffusers, in its favour); on CUDA, what torch
allocated at most.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pops.errors import PopsError

STEPS = 2  # more steps do not need more memory
GUIDANCE = 8.0


@dataclass(frozen=True)
class Peak:
    """peak: bytes, None if the system does not tell; seconds: reading, and packing (ours)."""

    way: str  # ours | public
    precision: str
    peak: int | None
    seconds: float


def measure(folder: Path, way: str, precision: str, device: str) -> Peak:
    """Samples once with guidance from the prior in `folder`, in a process of its own."""
    job = {"folder": str(folder), "way": way, "precision": precision, "device": device}
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        killed = " (killed, probably out of memory)" if done.returncode < 0 else ""
        raise PopsError(f"measuring memory failed{killed}: {last}; leave it out with --no-memory")
    return Peak(way, precision, **json.loads(done.stdout.splitlines()[-1]))


def _child(folder: str, way: str, precision: str, device: str) -> dict[str, Any]:
    import time

    import torch

    gens = [torch.Generator().manual_seed(0)]
    if way == "public":
        from diffusers import PriorTransformer

        from benchmarks import public

        before, begun = resident_peak(), time.perf_counter()
        prior = PriorTransformer.from_pretrained(folder, torch_dtype=getattr(torch, precision)).to(device)
        seconds = time.perf_counter() - begun
        tokens = torch.randn(1, 2, prior.config.embedding_dim, generator=gens[0])
        public.sample(prior.eval(), tokens, gens, guidance=GUIDANCE, steps=STEPS)
    else:
        from typing import cast

        from pops.operators.operator import Task, sample
        from pops.prior.condition import Condition
        from pops.prior.linear import Precision
        from pops.prior.transformer import PriorModel

        before, begun = resident_peak(), time.perf_counter()
        model = PriorModel.load(folder, precision=cast("Precision", precision), device=device)
        _ = model.engine
        seconds = time.perf_counter() - begun
        tokens = torch.randn(1, 2, model.dim, generator=gens[0])
        sample([Task(model, Condition(tokens), GUIDANCE)], gens, steps=STEPS)
    if torch.device(device).type == "cuda":
        return {"peak": torch.cuda.max_memory_allocated(device), "seconds": seconds}
    after = resident_peak()
    return {"peak": None if after is None or before is None else after - before, "seconds": seconds}


def resident_peak() -> int | None:
    """Returns the peak resident bytes of this process so far; None if the system does not tell.

    On Linux from /proc, since ru_maxrss begins with the peak of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(_child(**json.loads(sys.argv[1]))))
