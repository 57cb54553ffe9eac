"""Official checkpoints: strange ones are refused in a line, good ones keep their numbers, and convert once."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

import pops
from folders import DIM, write_model
from pops import pickles
from pops.cli.main import app
from pops.errors import CheckpointError, ConfigError, PopsError
from pops.operators import official
from pops.operators.checkpoint import load_operator
from pops.operators.official import cache_folder, cached, import_official, load_official
from pops.operators.spec import BUILTIN
from pops.prior.transformer import FROZEN, PriorModel

Q = "transformer_blocks.1.attn1.to_q.weight"
SPEC = BUILTIN["texturing"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "model", renderer=False, space=None)


@pytest.fixture(scope="module")
def base(model: Path) -> PriorModel:
    return PriorModel.load(model)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def state(base: PriorModel) -> dict[str, Tensor]:
    """A random prior's weights, as an official checkpoint holds them."""
    gen = torch.Generator().manual_seed(0)
    weights = {k: v for k, v in base.transformer.state_dict().items() if k not in FROZEN}
    return {k: v + 0.1 * torch.randn(v.shape, generator=gen) for k, v in weights.items()}


def write(path: Path, held: Any, **how: Any) -> Path:
    torch.save(held, path, **how)
    return path


def weights_of(operator: Any) -> dict[str, Tensor]:
    got: dict[str, Tensor] = operator.prior.transformer.state_dict()
    return got


# --- what is read --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pickles_here")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "ema": {k: v + 1 for k, v in s.items()}, "optimizer": {"lr": 1e-5}},
        lambda s: {"anything": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {k: torch.nn.Parameter(v) for k, v in s.items()},
        lambda s: s | {name: torch.full((1, DIM), 9.0) for name in FROZEN},
    ],
    ids=["bare", "state_dict", "model", "one key", "module.", "both", "parameters", "statistics"],
)
def test_forms_of_a_state_dict(
    tmp_path: Path, base: PriorModel, state: dict[str, Tensor], wrap: Callable[[Any], Any]
) -> None:
    operator = load_official(write(tmp_path / "learned_prior.pth", wrap(state)), SPEC, base)
    got = weights_of(operator)
    assert all(torch.equal(got[name], value) for name, value in state.items())
    own = base.transformer.state_dict()
    assert all(torch.equal(got[name], own[name]) for name in FROZEN), "the statistics are the base's"
    assert operator.spec == SPEC and operator.prior.scheduler == base.scheduler


@pytest.mark.usefixtures("pickles_here")
def test_other_kinds_of_files(tmp_path: Path, base: PriorModel, state: dict[str, Tensor]) -> None:
    plain = write(tmp_path / "plain.pth", state)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    write(tmp_path / "legacy.pth", state, _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "state.safetensors")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "learned_prior.pth", state)
    for name in ("packed.pth", "legacy.pth", "state.safetensors", "folder/learned_prior.pth"):
        got = weights_of(load_official(tmp_path / name, SPEC, base))
        assert all(torch.equal(got[k], v) for k, v in state.items()), name


@pytest.mark.usefixtures("pickles_here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_stored_precision_is_kept(
    tmp_path: Path, base: PriorModel, state: dict[str, Tensor], dtype: torch.dtype
) -> None:
    stored = {k: v.to(dtype) for k, v in state.items()}
    path = write(tmp_path / "learned_prior.pth", stored)
    folder = import_official(path, "texturing", tmp_path / "op", base=base, space="s")
    held = load_file(folder / "prior.safetensors")
    assert set(held) == set(stored) and all(torch.equal(held[k], v) for k, v in stored.items())
    about = json.loads((folder / "operator.json").read_text())
    assert about["base"] == base.fingerprint and about["space"] == "s"
    assert about["provenance"]["imported_from"] == "learned_prior.pth" and len(about["provenance"]["sha256"]) == 64
    got, direct = weights_of(load_operator(folder, base, space="s")), weights_of(load_official(path, SPEC, base))
    assert all(torch.equal(got[k], v.float()) and torch.equal(direct[k], v.float()) for k, v in stored.items())


# --- what is refused -----------------------------------------------------------------------------------


def changed(**new: Any) -> Callable[[dict[str, Tensor]], Any]:
    return lambda s: s | new


@pytest.mark.usefixtures("pickles_here")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {k: v for k, v in s.items() if k != Q}, rf"missing: {Q}\)"),
        (changed(more=torch.zeros(2)), r"surplus: more\)"),
        (changed(**{Q: torch.zeros(3, 4)}), r"misshaped: .*to_q.weight \(3, 4\) instead of \(32, 32\)"),
        (lambda s: {k: v[..., :1] for k, v in s.items()}, "misshaped: .* and [0-9]+ more"),
        (changed(**{Q: torch.full((32, 32), torch.nan)}), rf"NaN or infinity in {Q}"),
        (changed(**{Q: torch.zeros(32, 32, dtype=torch.int64)}), f"does not hold a floating-point tensor under {Q}"),
        (changed(epoch=3), "does not hold a tensor under epoch"),
        (lambda s: {}, "holds nothing, not the weights of a prior"),
        (lambda s: {"a": 1, "b": "x"}, "holds a, b, not the weights of a prior"),
        (lambda s: list(s.values()), "holds a list, not the weights of a prior"),
        (lambda s: {"one": s, "two": s}, "holds one, two, not the weights"),
        (changed(**{Q: torch.zeros(1).expand(10**6, 10**6)}), "far larger than its size"),
    ],
)
def test_checkpoints_that_do_not_fit_are_told_in_one_line(
    tmp_path: Path, base: PriorModel, state: dict[str, Tensor], change: Callable[[Any], Any], says: str
) -> None:
    path = write(tmp_path / "learned_prior.pth", change(state))
    for read in (
        lambda: load_official(path, SPEC, base),
        lambda: import_official(path, "texturing", tmp_path / "op", base=base, space="s"),
    ):
        with pytest.raises(CheckpointError, match=says) as caught:
            read()
        assert "learned_prior.pth" in str(caught.value) and "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    assert not any((tmp_path / "op").glob("*")), "nothing half-written"


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "legacy", "inside", "pickle 0", "pickle 4"])
def test_a_pickle_with_code_in_it_runs_none(tmp_path: Path, base: PriorModel, form: str) -> None:
    evil, path = Evil(f"touch {tmp_path / 'owned'}"), tmp_path / "learned_prior.pth"
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(evil, protocol=int(form[-1])))
    else:
        held = {"weight": torch.zeros(2), "more": evil} if form == "inside" else evil
        torch.save(held, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(
        CheckpointError, match=r"asks for (posix|nt)\.system, which plain tensors do not need"
    ) as caught:
        load_official(path, SPEC, base)
    assert "\n" not in str(caught.value) and not (tmp_path / "owned").exists()


def test_even_a_reader_with_a_hole_does_nothing_else(tmp_path: Path) -> None:
    """The second wall: the child itself, as if weights_only had let the command through."""
    code = (
        "import os, sys; from pops import pickles; pickles._confine(1000, 'out')\n"
        "for run in (lambda: os.system('touch owned'), lambda: __import__('subprocess').run(['touch', 'owned']),\n"
        "            lambda: open('owned', 'w'), lambda: __import__('socket').create_connection(('127.0.0.1', 9))):\n"
        "    try: run()\n"
        "    except pickles._Refusal as e: print(e)\n"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("which was stopped") == 4 and not (tmp_path / "owned").exists()


@pytest.mark.usefixtures("pickles_here")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello, I am a web page", "is not a readable file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a git-lfs pointer"),
        (b"PK\3\4 cut", "is truncated"),
        (None, "not an operator folder"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, model: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "learned_prior.pth"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as caught:
        pops.load(model, operators={"texturing": path}, device="cpu").operator("texturing")
    assert "\n" not in str(caught.value)


def test_a_child_that_dies_or_hangs_is_told(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = write(tmp_path / "a.pth", state), tmp_path / "out.safetensors"
    monkeypatch.setattr(pickles, "_CHILD", "import os; os.abort()")
    with pytest.raises(CheckpointError, match=r"a\.pth cannot be read \(code -?\d+"):
        pickles.convert(path, target, kind="weights", error=CheckpointError)
    monkeypatch.setattr(pickles, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(pickles, "SECONDS", 1)
    with pytest.raises(CheckpointError, match="was not read within 1 s"):
        pickles.convert(path, target, kind="weights", error=CheckpointError)


# --- the cache -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pickles_here")
def test_it_is_converted_once(
    tmp_path: Path, cache: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "learned_prior.pth", state)
    first = cached(path)
    assert first.is_relative_to(cache / "operators") and len(first.parent.name) == 64
    monkeypatch.setattr(official, "convert", lambda *_, **__: pytest.fail("it was converted again"))
    assert cached(path) == first
    copy = tmp_path / "copy.pth"
    copy.write_bytes(path.read_bytes())
    assert cached(copy) == first, "the same content"
    monkeypatch.setattr(official, "convert", pickles.convert)
    write(path, {k: v + 1 for k, v in state.items()})
    assert cached(path) != first, "another content under the old name"
    assert not list(cache.rglob(".*")), "no temporary files remain"


@pytest.mark.usefixtures("pickles_here")
def test_an_old_file_is_not_even_read_again(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "learned_prior.pth", state)
    monkeypatch.setattr(official, "SETTLED", -1.0)
    first = official._digest(path)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was read again"))
    assert official._digest(path) == first
    os.utime(path, (1, 1))
    with pytest.raises(pytest.fail.Exception):
        official._digest(path)


@pytest.mark.usefixtures("pickles_here")
def test_a_failed_conversion_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "learned_prior.pth", [1])
    with pytest.raises(CheckpointError):
        cached(path)
    assert not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"POPS_CACHE": "/c/pops"}, "/c/pops"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/pops"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/pops"),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    monkeypatch.delenv("POPS_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert cache_folder() == Path(folder)


@pytest.mark.usefixtures("pickles_here")
def test_a_cache_that_cannot_be_written_names_the_setting(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POPS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match="POPS_CACHE"):
        cached(write(tmp_path / "learned_prior.pth", state))


# --- as users meet it ----------------------------------------------------------------------------------


def test_names_and_paths_are_looked_at_when_the_model_is_loaded(
    tmp_path: Path, model: Path, state: dict[str, Tensor]
) -> None:
    path = write(tmp_path / "learned_prior.pth", state)
    with pytest.raises(CheckpointError, match=r"pops operators import .*learned_prior\.pth --as texturing") as caught:
        pops.load(model, operators={"texturin": path})
    assert "did you mean 'texturing'" in str(caught.value)
    with pytest.raises(CheckpointError, match="does not exist"):
        pops.load(model, operators={"texturing": tmp_path / "nothere.pth"})
    with pytest.raises(CheckpointError, match="not an operator folder"):
        pops.load(model, operators={"texturing": model})
    p = pops.load(model, operators={"texturing": str(path)})
    assert p.operators == {"texturing": SPEC} and "prior" not in vars(p.model)


@pytest.mark.usefixtures("pickles_here")
def test_an_imported_folder_goes_by_any_name(tmp_path: Path, model: Path, state: dict[str, Tensor]) -> None:
    path = write(tmp_path / "learned_prior.pth", state)
    plain = pops.load(model, device="cpu")
    folder = import_official(path, "union", tmp_path / "op", base=plain.model.prior, space=plain.space.id)
    p = pops.load(model, operators={"mine": folder, "union": path}, device="cpu")
    e = pops.Embedding(torch.randn(1, DIM), p.space.id)
    mine, direct = (p.apply(name, e, None, steps=2).vectors for name in ("mine", "union"))
    assert torch.equal(mine, direct)


@pytest.mark.usefixtures("pickles_here")
def test_checkpoints_inside_a_model_folder_are_its_operators(tmp_path: Path, state: dict[str, Tensor]) -> None:
    model = write_model(tmp_path / "model", renderer=False, space=None)
    for name in ("scene", "unheard_of"):
        (model / "operators" / name).mkdir(parents=True)
        write(model / "operators" / name / "learned_prior.pth", state)
    p = pops.load(model)
    assert list(p.operators) == ["scene"]
    assert torch.equal(weights_of(p.operator("scene"))[Q], state[Q])


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_import_on_the_command_line(tmp_path: Path, model: Path, state: dict[str, Tensor]) -> None:
    path = write(tmp_path / "learned_prior.pth", state)
    done = run("operators", "import", path, "--as", "texturing", "--model", model, "-o", tmp_path / "op")
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "op"))
    p = pops.load(model, operators={"texturing": tmp_path / "op"}, device="cpu")
    assert torch.equal(weights_of(p.operator("texturing"))[Q], state[Q])
    again = run("operators", "import", path, "--as", "scene", "--model", model, "-o", tmp_path / "op")
    assert again.exit_code == 2 and "holds an operator already" in again.stderr
    forced = run(
        "operators", "import", path, "--as", "scene", "--model", model, "-o", tmp_path / "op", "--force", "--json"
    )
    assert json.loads(forced.stdout) == {
        "ok": True,
        "operator": "scene",
        "folder": str(tmp_path / "op"),
        "model": str(model),
    }
    assert "pops operators import learned_prior.pth --as" in run("operators", "import", "--help").stdout


@pytest.mark.usefixtures("pickles_here")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothere.pth", "--as", "texturing", "-o", "op"], "nothere.pth does not exist"),
        (["$M", "--as", "texturing", "-o", "op"], "is not a file; name a learned_prior.pth"),
        (["good.pth", "--as", "texturng", "-o", "op"], "did you mean 'texturing'"),
        (["good.pth", "--as", "texturing", "-o", "good.pth"], "good.pth is a file; name a folder"),
        (["good.pth", "--as", "texturing", "-o", "good.pth/op"], "cannot be written"),
        (["junk.pth", "--as", "texturing", "-o", "op"], "junk.pth is not a readable file of torch.save"),
        (["other.pth", "--as", "texturing", "-o", "op"], "does not fit the base prior (missing: "),
        (["good.pth", "--as", "texturing", "-o", "op", "-m", "tinny"], "did you mean 'tiny'"),
    ],
)
def test_wrong_imports_are_one_line_and_code_2(
    tmp_path: Path,
    model: Path,
    state: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.pth", state)
    write(tmp_path / "other.pth", {"conv.weight": torch.zeros(3)})
    (tmp_path / "junk.pth").write_text("junk")
    words = [str(model) if w == "$M" else w for w in words]
    done = run("operators", "import", *words, *([] if "-m" in words else ["-m", str(model)]))
    assert done.exit_code == 2 and done.stderr.startswith("pops: ") and says in done.stderr
    assert done.stderr.count("\n") == 1 and not any((tmp_path / "op").glob("*"))


@pytest.mark.usefixtures("pickles_here")
def test_a_picture_remembers_its_operator(
    tmp_path: Path, random_model: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torch.randn(1, DIM), "e.pth")
    held = PriorModel.load(random_model).transformer.state_dict()
    write(tmp_path / "learned_prior.pth", {k: v for k, v in held.items() if k not in FROZEN})
    done = run(
        "run", "texturing(e.pth, _)", "-m", random_model, "--operator", "texturing=learned_prior.pth", "-o", "a.png"
    )
    assert done.exit_code == 0, done.stderr
    assert run("run", "a.png", "--trust", "-o", "b.png").exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    bad = run("run", "texturing(e.pth, _)", "-m", random_model, "--operator", "texturing", "-o", "c.png")
    assert bad.exit_code == 2 and "--operator is NAME=PATH" in bad.stderr


def test_errors_are_ours(tmp_path: Path) -> None:
    assert issubclass(CheckpointError, PopsError) and CheckpointError.exit_code == 2
