"""Kandinsky 2.2's repos as models: the prior alone, with a decoder in one folder or two, the combined pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, KandinskyV22CombinedPipeline, KandinskyV22PriorPipeline
from PIL import Image
from typer.testing import CliRunner

import pops
from folders import DIM, write_kandinsky_decoder, write_model
from pops.cli.main import app
from pops.embedding import UNKNOWN_SPACE
from pops.errors import SpaceError
from pops.operators.checkpoint import save_operator
from pops.operators.spec import BUILTIN

E = pops.Embedding(torch.randn(1, DIM, generator=torch.Generator().manual_seed(0)), UNKNOWN_SPACE)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prior's repo, with one operator, whose clamp is not the default."""
    folder = write_model(tmp_path_factory.mktemp("repos") / "prior", renderer=False, space=None)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"clip_sample_range": 5.0', '"clip_sample_range": 0.5'))
    p = pops.load(folder, device="cpu")
    delta = {"proj_in.weight.delta": torch.ones(DIM, DIM)}
    save_operator(folder / "operators" / "union", BUILTIN["union"], delta, base=p.model.prior, space=p.space.id)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kandinsky_decoder(tmp_path_factory.mktemp("repos") / "decoder")


@pytest.fixture(scope="module")
def combined(prior: Path, decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What diffusers' combined pipeline saves: prior_prior, prior_scheduler, ..., unet, movq, scheduler."""
    first, second = KandinskyV22PriorPipeline.from_pretrained(prior), DiffusionPipeline.from_pretrained(decoder)
    parts = {f"prior_{name}": part for name, part in first.components.items()}
    folder = tmp_path_factory.mktemp("repos") / "combined"
    KandinskyV22CombinedPipeline(**second.components, **parts).save_pretrained(folder)
    shutil.copytree(prior / "operators", folder / "operators")
    return folder


def test_every_layout_computes_the_same(prior: Path, decoder: Path, combined: Path, tmp_path: Path) -> None:
    want = pops.load(prior, device="cpu").apply("union", E, None, seed=1, steps=5)
    assert float(want.vectors.abs().max()) > 0
    beside = tmp_path / "beside"
    shutil.copytree(prior, beside)
    shutil.copytree(decoder, beside / "decoder")
    for p in (
        pops.load(prior, decoder=decoder, device="cpu"),
        pops.load(beside, device="cpu"),
        pops.load(combined, device="cpu"),
    ):
        got = p.apply("union", E, None, seed=1, steps=5)
        assert torch.equal(got.vectors, want.vectors) and got.space == want.space
        text = p.evaluate('text("a red tiger")', steps=3)
        assert torch.equal(
            text.vectors, pops.load(prior, device="cpu").evaluate('text("a red tiger")', steps=3).vectors
        )


def test_both_in_one_folder_with_the_decoders_scheduler(prior: Path, decoder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(prior, both)
    shutil.copytree(decoder, both, dirs_exist_ok=True)
    p = pops.load(both, device="cpu")
    assert p.model.prior.scheduler.clip == 5.0, "Kandinsky 2.2's own, for nothing here says it"
    assert p.model.files.renderer == both and p.operators.keys() == {"union"}
    shutil.copytree(prior / "scheduler", both / "prior_scheduler")
    assert pops.load(both, device="cpu").model.prior.scheduler.clip == 0.5


@pytest.mark.usefixtures("pickles_here")
def test_every_layout_renders_the_same(prior: Path, decoder: Path, combined: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(decoder, tmp_path / "bare")
    (bare / "model_index.json").unlink()
    want = np.asarray(pops.load(prior, decoder=decoder, device="cpu").render(E, steps=2)[0])
    assert want.shape == (16, 16, 3) and want.std() > 2
    for p in (pops.load(combined, device="cpu"), pops.load(prior, decoder=bare, device="cpu")):
        assert np.array_equal(np.asarray(p.render(E, steps=2)[0]), want)
    torch.save(E.vectors, tmp_path / "e.pth")
    words = ["run", str(tmp_path / "e.pth"), "-m", str(prior), "-o", str(tmp_path / "x.png")]
    bare_run = CliRunner().invoke(app, words)
    assert bare_run.exit_code == 2 and "has no renderer; name one" in bare_run.stderr


@pytest.mark.usefixtures("pickles_here")
def test_the_command_line_renders_with_a_decoder_and_repeats_it(
    prior: Path, decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(E.vectors, "e.pth")
    words = ["run", "union(e.pth, _)", "--model", str(prior), "--decoder", str(decoder), "-o", "a.png"]
    done = CliRunner().invoke(app, [*words, "--render-steps", "2", "--size", "20"])
    assert done.exit_code == 0, done.stderr
    with Image.open("a.png") as picture:
        assert picture.size == (20, 20)
    assert CliRunner().invoke(app, ["run", "a.png", "--trust", "-o", "b.png"]).exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    done = CliRunner().invoke(app, [*words, "--render-steps", "2", "--size", "22"])
    assert done.exit_code == 2 and "the nearest that works is 24x24" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.usefixtures("pickles_here")
def test_a_decoder_given_renders_and_is_remembered(
    prior: Path, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(E.vectors, "e.pth")
    words = ["run", "union(e.pth, _)", "-m", str(prior), "--decoder", str(random_model), "-o", "a.png"]
    words += ["--render-steps", "2", "--size", "32"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert CliRunner().invoke(app, ["run", "a.png", "--trust", "-o", "b.png"]).exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


@pytest.mark.usefixtures("pickles_here")
def test_embeddings_of_other_programs_take_the_space_of_the_model(prior: Path, tmp_path: Path) -> None:
    p = pops.load(prior, device="cpu")
    result = p.apply("union", E, None, steps=2)
    for name in ("e.npy", "e.ipadpt", "e.safetensors"):
        E.save(tmp_path / name)
        for operand in (tmp_path / name, str(tmp_path / name)):
            assert torch.equal(p.apply("union", operand, None, steps=2).vectors, result.vectors)
    assert result.space == p.space.id
    with pytest.raises(SpaceError, match="7 numbers a vector, the space 32"):
        p.apply("union", pops.Embedding(torch.ones(1, 7), UNKNOWN_SPACE), None, steps=2)
