"""Two processes (gloo, on this CPU) train as one does: data parallel, and fully sharded.

Equal to rounding: sums over a batch are taken in another order. TOLERANCE is a thousandth of what a step moves.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from data.examples import write_examples
from pops.cli.main import app
from pops.errors import ConfigError
from pops.training.config import TrainConfig
from pops.training.data import EmbeddingData
from pops.training.trainable import new_prior
from pops.training.trainer import train
from pops.training.validation import Validation

TOLERANCE = 2e-6
# Adding a constant to all keys changes no softmax: the gradient of a key's bias is nothing but rounding.
IDLE = "attn1.to_k.bias"
LR = 2e-3
DIM, N = 16, 40


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(out: Path, rank: int) -> None:
    """Trains for a few steps, stopped in the middle and resumed."""
    a = randn(N, 2, DIM)
    data = EmbeddingData(target=(a[:, 0] + a[:, 1].flip(1)) / 2, operands=a)
    base = new_prior(data.stats(), layers=2, heads=2, head_dim=8, seed=3)
    config = TrainConfig(
        operator="twin", steps=6, batch_size=8, warmup=0, log_every=1, eval_every=2, rank=rank, lr=LR, save_every=3,
        accumulate=2, operand_noise=0.1, drop_each=0.1,
    )  # fmt: skip
    held = Validation(data, a.mean(dim=1), base, data.target, data.target.mean(dim=0))
    for stop in (3, None):
        train(config, data, base, out, validate=held, stop_at=stop)


PROCESS = """
import sys, torch
sys.path[:0] = {tests!r}
torch.set_num_threads(1)
from pathlib import Path
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from training.test_parallel import run
from pops.training import parallel
import os
sharded, whole = [], parallel.whole
parallel.whole = lambda value: (sharded.append(hasattr(value, "full_tensor")), whole(value))[1]
for kind in ("data", "sharded"):
    if kind == "sharded":
        # accelerate shards by its settings on accelerators only; its state, which all share, says so here.
        AcceleratorState._reset_state()
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["BasicTransformerBlock"],
        )
        Accelerator(cpu=True, fsdp_plugin=plugin)
        AcceleratorState._shared_state["fsdp_plugin"] = plugin
        for state in (AcceleratorState, PartialState):
            state._shared_state["distributed_type"] = DistributedType.FSDP
    for rank in (0, 2):
        run(Path({out!r}) / f"{{kind}}-{{rank}}", rank)
    assert any(sharded) == (kind == "sharded")
torch.distributed.destroy_process_group()
"""


def two_processes(*words: str) -> list[str]:
    """Runs a Python command in two processes that know of each other, and returns what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **both, "RANK": str(i), "LOCAL_RANK": str(i), "ACCELERATE_USE_CPU": "true"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=600) for process in processes]
    errors = "\n".join(error[-3000:] for _, error in told)
    assert [process.returncode for process in processes] == [0, 0], errors
    return [out for out, _ in told]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs by two processes."""
    out, tests = tmp_path_factory.mktemp("parallel"), Path(__file__).parents[1]
    two_processes("-c", PROCESS.format(tests=[str(tests), str(tests.parent)], out=str(out)))
    return out


def test_the_command_in_two_processes(folder: Path, tmp_path: Path) -> None:
    """One encodes and writes, both train; the operator is the one that a single process learns."""
    write_examples(tmp_path / "pairs", count=24)
    words = ["train", str(tmp_path / "pairs"), "--model", str(folder), "--name", "twin", "--from", "union", "--json"]
    words += ["--set", "steps=4", "--set", "batch_size=8", "--set", "eval_every=2", "--set", "grid=0"]
    told = two_processes("-m", "pops", *words, "-o", str(tmp_path / "two"))
    data = json.loads(told[0])
    assert told[1] == "" and data["steps"] == 4 and data["folder"] == str(tmp_path / "two")
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "one")])
    assert done.exit_code == 0 and json.loads(done.stdout)["cosine"] == pytest.approx(data["cosine"], abs=1e-4)
    assert {p.name for p in (tmp_path / "one").iterdir()} == {p.name for p in (tmp_path / "two").iterdir()}
    one, two = (load_file(tmp_path / name / "adapter.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=2e-3)  # of float16


@pytest.mark.parametrize("kind", ["data", "sharded"])
@pytest.mark.parametrize("rank", [0, 2])
def test_two_processes_train_as_one(runs: Path, tmp_path: Path, kind: str, rank: int) -> None:
    run(tmp_path, rank)
    one, two = (load_file(folder / "checkpoint.safetensors") for folder in (tmp_path, runs / f"{kind}-{rank}"))
    assert set(one) == set(two)
    assert any(name.startswith("best/") for name in one)
    for name in one:
        if not name.startswith("adam/") and not name.endswith(IDLE):
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=TOLERANCE, msg=partial("{}: {}".format, name))
    logs = [
        [json.loads(x) for x in (f / "log.jsonl").read_text().splitlines()] for f in (tmp_path, runs / f"{kind}-{rank}")
    ]
    assert len(logs[0]) == len(logs[1]) > 8
    for mine, theirs in zip(*logs):
        assert mine["step"] == theirs["step"]
        for key in ("loss", "grad_norm"):
            assert mine.get(key, 0) == pytest.approx(theirs.get(key, 0), rel=1e-4)
        for key, value in mine.get("validation", {}).items():
            assert value == pytest.approx(theirs["validation"][key], abs=1e-4)


def test_the_tolerance_is_far_below_what_a_run_changes(tmp_path: Path) -> None:
    run(tmp_path, 0)
    state = load_file(tmp_path / "checkpoint.safetensors")
    data = randn(N, 2, DIM)
    base = new_prior(
        EmbeddingData(target=(data[:, 0] + data[:, 1].flip(1)) / 2).stats(), layers=2, heads=2, head_dim=8, seed=3
    )
    moved = [
        float((state[f"param/{name}"] - value).abs().mean())
        for name, value in base.transformer.state_dict().items()
        if f"param/{name}" in state
    ]
    assert sum(moved) / len(moved) > 500 * TOLERANCE


def test_a_batch_that_cannot_be_parted(tmp_path: Path) -> None:
    data = EmbeddingData(target=randn(N, DIM), operands=randn(N, 2, DIM, seed=1))
    base = new_prior(data.stats(), layers=1, heads=2, head_dim=8)
    config = TrainConfig(operator="twin", steps=1, batch_size=8, accumulate=2, contrastive_weight=0.5)
    with pytest.raises(ConfigError, match="contrastive_weight compares the samples of a batch: it needs one process"):
        train(config, data, base, tmp_path)
