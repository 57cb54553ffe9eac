"""`python -m benchmarks prior` on a tiny cut: what is computed, counted and reported; never how fast it is."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.__main__ import app
from benchmarks.memory import Peak
from benchmarks.prior import Plan
from diffusers import PriorTransformer
from typer.testing import CliRunner

from benchmarks import machine, memory, prior, prior_tables, public, random_prior, training
from pops.errors import ConfigError, PopsError
from pops.prior.config import PriorConfig
from pops.prior.transformer import PriorModel
from pops.seeds import generators

SHAPE = {"num_attention_heads": 2, "attention_head_dim": 16, "embedding_dim": 32, "num_embeddings": 77}
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 16,
    "hidden_act": "gelu",
}
SMALL = Plan(
    layers=1,
    batches=(3, 1),
    guidances=(1.0, 8.0),
    steps=4,
    rounds=2,
    train_layers=1,
    train_batches=(1, 2),
    shape=SHAPE,
    encoder=ENCODER,
)


def shrink(monkeypatch):
    """Makes the machine's test data and the command's prior small."""
    monkeypatch.setattr(machine, "READ", 2**12)
    monkeypatch.setattr(machine, "SIDE", 32)
    monkeypatch.setattr(machine, "ROWS", 16)
    monkeypatch.setattr(random_prior, "FULL", SHAPE)
    monkeypatch.setattr(training, "ENCODER", ENCODER)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


def fake_peak(folder, way, precision, device):
    assert (folder / "config.json").is_file()
    return Peak(way, precision, 2_000_000_000, 1.5)


@pytest.fixture(scope="module")
def report():
    seen = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink(monkeypatch)
        monkeypatch.setattr(memory, "measure", fake_peak)
        report = prior.measure(SMALL, on_progress=lambda *said: seen.append(said))
    assert [done for done, _, _ in seen] == list(range(seen[0][1]))  # as many parts as announced
    return report


def test_the_full_shape_is_the_published_one(monkeypatch):
    monkeypatch.undo()
    config = PriorConfig.of(random_prior.settings(20))
    assert (config.width, config.slots, config.dim, config.layers) == (2048, 77, 1280, 20)
    assert random_prior.count(config) == pytest.approx(1.03e9, rel=0.01)


def test_random_tensors_start_as_torch_layers_do():
    config = random_prior.settings(2)
    tensors = random_prior.RandomTensors(PriorConfig.of(config))
    model = PriorModel(tensors=tensors, settings=config)
    torch.manual_seed(0)
    theirs = PriorTransformer.from_config(config).state_dict()
    assert set(tensors) == set(theirs) == set(model.transformer.state_dict())
    for name, value in theirs.items():
        drawn = tensors[name]
        assert drawn.shape == value.shape and torch.equal(drawn, tensors[name])
        if value.std() > 0 and value.numel() > 500:
            assert float(drawn.std() / value.std()) == pytest.approx(1, abs=0.1), name
            assert float(drawn.abs().max()) <= float(value.abs().max()) * 1.1, name
    assert float(tensors["prd_embedding"].std()) == pytest.approx(0.02, rel=0.3)
    assert not torch.equal(tensors["transformer_blocks.0.attn1.to_q.weight"], tensors["proj_in.weight"])
    assert not torch.equal(
        tensors["transformer_blocks.0.attn1.to_q.weight"], tensors["transformer_blocks.1.attn1.to_q.weight"]
    )


def test_the_folder_is_what_diffusers_and_pops_read(tmp_path):
    config = random_prior.settings(2)
    random_prior.write_folder(config, tmp_path)
    theirs = PriorTransformer.from_pretrained(tmp_path).state_dict()
    ours = PriorModel.load(tmp_path).tensors
    drawn = random_prior.RandomTensors(PriorConfig.of(config))
    assert all(torch.equal(theirs[name], drawn[name]) and torch.equal(ours[name], drawn[name]) for name in drawn)


@pytest.mark.parametrize("guidance", [1.0, 8.0])
def test_the_public_way_is_the_slow_twin(guidance):
    """Batched, with both branches of guidance in one batch: equal to pops' own slow forward."""
    from pops.operators.operator import Task, sample
    from pops.prior.condition import Condition

    config = random_prior.settings(1)
    model = PriorModel(tensors=random_prior.RandomTensors(PriorConfig.of(config)), settings=config)
    tokens = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(0))
    got = public.sample(model.transformer, tokens, generators([4, 5, 6]), guidance=guidance, steps=5)
    want = sample([Task(model, Condition(tokens), guidance)], generators([4, 5, 6]), steps=5, full=True)
    assert prior.off(got, want) < 1e-5
    alone = public.sample(model.transformer, tokens[1:2], generators([5]), guidance=guidance, steps=5)
    assert prior.off(alone[0], want[1]) < 1e-5


def test_cells_are_every_batch_with_every_guidance(report):
    assert [(c.batch, c.guidance) for c in report.cells] == [(1, 1.0), (1, 8.0), (3, 1.0), (3, 8.0)]
    assert [c.public_steps for c in report.cells] == [4, 4, 1, 1]
    for cell in report.cells:
        assert set(cell.ours) == {"float32", "bfloat16", "int8"} and set(cell.public) == {"float32", "bfloat16"}
        for ours in cell.ours.values():
            assert ours.step == pytest.approx(ours.seconds / 4) and ours.of_floor == pytest.approx(
                ours.step / ours.floor
            )
            assert ours.speedups["bfloat16"] == pytest.approx(cell.public["bfloat16"] / ours.seconds)
    assert set(report.build) == {"float32", "bfloat16", "int8"} and report.read_rate > 0


def test_errors_are_of_item_0_against_the_public_way_at_batch_1(report):
    for cell in report.cells:
        assert cell.ours["float32"].error < 1e-5
        assert 1e-5 < cell.ours["bfloat16"].error < 0.05 and 1e-5 < cell.ours["int8"].error < 0.1
        assert set(cell.public_error) == ({"bfloat16"} if cell.batch == 1 else set())


def test_a_larger_batch_alone_is_judged_too():
    report = prior.measure(replace(SMALL, batches=(2,), memory=False, training=False, rounds=1))
    assert [c.ours["float32"].error < 1e-5 for c in report.cells] == [True, True]
    assert report.memory is None and report.training is None


def test_the_floor_of_a_step():
    """By hand: width 32, one layer, without the condition's matrices; in the last block the query's row alone."""
    config = PriorConfig.of(random_prior.settings(1))
    w = 32
    once = 2 * w * w + w * w + w * w + 8 * w * w + w * w  # time, noisy, mix, up and down, out
    weights, operations = once + 3 * w * w, 2 * (once + 3 * 3 * w * w)
    assert prior.floor_of(config, 2, "float32", 1e9, 1e30) == pytest.approx(4 * weights / 1e9)
    assert prior.floor_of(config, 2, "int8", 1e9, 1e30) == pytest.approx(weights / 1e9)
    assert prior.floor_of(config, 2, "int8", 1e30, 1e9) == pytest.approx(2 * operations / 1e9)
    two = PriorConfig.of(random_prior.settings(2))
    more = prior.floor_of(two, 1, "int8", 1e30, 1e9) - prior.floor_of(config, 1, "int8", 1e30, 1e9)
    assert more == pytest.approx(2 * 3 * 12 * w * w / 1e9)


def test_memory_is_measured_in_a_process_of_its_own(tmp_path):
    random_prior.write_folder(random_prior.settings(1), tmp_path)
    peak = memory.measure(tmp_path, "ours", "int8", "cpu")
    assert (peak.way, peak.precision) == ("ours", "int8") and peak.seconds > 0
    assert peak.peak is None or 0 <= peak.peak < 200e6


@pytest.mark.parametrize(
    ("code", "says"),
    [(1, "failed: pops.errors.ModelError: no prior; leave it out with --no-memory"), (-9, "failed .killed, probably")],
)
def test_such_a_process_may_fail(tmp_path, monkeypatch, code, says):
    stderr = "Traceback\n  ...\npops.errors.ModelError: no prior\n" if code > 0 else ""
    done = subprocess.CompletedProcess([], code, "", stderr)
    monkeypatch.setattr(memory.subprocess, "run", lambda *args, **how: done)
    with pytest.raises(PopsError, match=says):
        memory.measure(tmp_path, "ours", "int8", "cpu")


def test_the_public_way_in_such_a_process(tmp_path):
    random_prior.write_folder(random_prior.settings(1), tmp_path)
    said = memory._child(str(tmp_path), "public", "bfloat16", "cpu")
    assert said["seconds"] > 0 and (said["peak"] is None or said["peak"] >= 0)


def test_training_steps_are_the_same_mathematics():
    """The losses of both ways agree step by step in float32, and nearly in bf16."""
    config = random_prior.settings(2)
    base = PriorModel(tensors=random_prior.RandomTensors(PriorConfig.of(config)), settings=config)
    ours, theirs = training.Ours(base), training.Public(base.transformer)
    samples = training.new_samples(3, training.new_encoder(1, base.dim, ENCODER), torch.device("cpu"))
    for _ in range(3):
        a, b = theirs.step(samples), ours.step(samples, "fp32")
        assert b == pytest.approx(a, rel=1e-4)
    weight = "transformer_blocks.0.attn1.to_q.weight"
    before = base.tensors[weight]
    moved = [m.state_dict()[weight] - before for m in (theirs.prior, ours.model.transformer)]
    assert float(moved[0].abs().max()) > 1e-6 and prior.off(moved[1], moved[0]) < 0.05
    assert ours.step(samples, "bf16") == pytest.approx(theirs.step(samples), rel=0.02)
    ours.average()
    assert all(not torch.equal(a, p) for a, p in zip(ours.averaged[:1], ours.trained[:1]))


def test_the_training_part_of_the_report(report):
    assert report.training.loss_error < 1e-5 and report.training.layers == 1
    for row in report.training.rows:
        assert row.ratios["fp32"] == pytest.approx(row.public / row.ours["fp32"])
        assert row.ratios_with_encoder["bf16"] == pytest.approx((row.public + row.encoder) / row.ours["bf16"])


def test_the_tables(report):
    text = prior_tables.markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 4 * 3 + 1 + 5 + 1 + 2
    heads = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert heads == [13] * (2 + 12) + [5] * (2 + 5) + [11] * (2 + 2)
    assert "1 step measured, times 4." in text and text.count("\\*") == 2 * 6 + 1
    assert "| ours | int8 | 2.00 | 1.5 |" in text and "cut to 1 of 48 layers" in text
    assert "\n## Sampling\n" in text and text.endswith("\n")


def test_the_command(tmp_path: Path) -> None:
    words = "prior --layers 1 --batch 1 --guidance 8 --precision float32 --steps 2 --rounds 1 --no-memory "
    words += "--train-layers 1 --train-batch 1 --device cpu --json --markdown"
    done = CliRunner().invoke(app, [*words.split(), str(tmp_path / "t.md")])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert [c["batch"] for c in said["cells"]] == [1] and said["memory"] is None
    assert said["cells"][0]["ours"]["float32"]["error"] < 1e-5 and said["training"]["rows"][0]["ratios"]
    assert "| 1 | 8 | fp32 |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--precision flaot32", "unknown precision 'flaot32' (did you mean 'float32'?)"),
        ("--precision ,", "--precision is empty"),
        ("--batch 1,x", "--batch takes whole numbers of at least 1"),
        ("--batch 0", "--batch takes whole numbers of at least 1"),
        ("--batch 1000000", "a batch must be between 1 and 4096, got 1000000"),
        ("--train-batch 0", "--train-batch takes whole numbers"),
        ("--guidance -1", "--guidance takes numbers with commas, such as 1,8; got '-1'"),
        ("--guidance nan", "--guidance takes numbers"),
        ("--guidance a", "--guidance takes numbers"),
        ("--layers 0", "--layers"),
        ("--steps 1", "--steps"),
        ("--device tpu", "device is auto, cpu, cuda or mps"),
    ],
)
def test_mistakes(words: str, says: str) -> None:
    done = CliRunner().invoke(app, ["prior", *words.split()])
    assert done.exit_code == 2 and says in done.stderr


def test_too_little_memory_is_an_error_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda device: 10_000)
    with pytest.raises(ConfigError, match=r"sampling needs about .* GB of memory and 0.0 are free; .*--precision"):
        prior.measure(SMALL)
    monkeypatch.setattr(prior, "needed", lambda plan: {"sampling": 10, "training": 20_000})
    with pytest.raises(ConfigError, match=r"training needs about .*--no-training"):
        prior.measure(SMALL)
    monkeypatch.setattr(machine, "free_memory", lambda device: None)
    monkeypatch.setattr(prior.shutil, "disk_usage", lambda place: type("Room", (), {"free": 10}))
    with pytest.raises(ConfigError, match="set TMPDIR, or use --no-memory"):
        prior.measure(SMALL)


def test_what_full_size_needs(monkeypatch):
    monkeypatch.undo()
    room = prior.needed(Plan())
    assert 13e9 < room["sampling"] < 17e9 and 8e9 < room["training"] < 12e9
    less = prior.needed(Plan(precisions=("bfloat16",), training=False))
    assert set(less) == {"sampling"} and less["sampling"] < room["sampling"] - 4.5e9


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"steps": 1}, {"rounds": 0}, {"batches": ()}, {"guidances": (-1.0,)}])
def test_a_plan_is_checked(wrong):
    with pytest.raises(ConfigError):
        replace(SMALL, **wrong)


def test_int8_is_for_a_cpu_alone():
    with pytest.raises(ConfigError, match="int8 weights run on a CPU only"):
        Plan(device="cuda")


@pytest.mark.gpu
def test_on_a_gpu(monkeypatch):
    monkeypatch.setattr(memory, "measure", fake_peak)
    plan = replace(SMALL, device="cuda", precisions=("float32", "bfloat16", "float16"))
    report = prior.measure(plan)
    assert all(c.public_steps == 4 and c.ours["float32"].error < 1e-4 for c in report.cells)
