"""The command line: outputs, exit codes, messages on stderr, data on stdout."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from folders import size_of
from pops.cli import shell
from pops.errors import ConfigError, PopsError
from pops.images import read_recipe
from pops.recipe import Recipe


def test_run_writes_the_image_and_prints_its_path(call: Any, photos: Path) -> None:
    done = call("run", "texturing(a.png, b.png)", "-m", "$M", "--steps", "3", "-o", "new/folder/out.png")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "new/folder/out.png\n", "")
    assert size_of("new/folder/out.png") == (32, 32)
    assert read_recipe("new/folder/out.png")["expression"] == "texturing(a.png, b.png)"


@pytest.mark.parametrize("words", [["run", "texturing(a.png, b.png"], ["run", "a.png", "-m", "$M", "-o", "x.png"]])
def test_a_command_collects_nothing_and_leaves_collecting_on(
    call: Any, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[bool] = []
    read = Recipe.read
    monkeypatch.setattr(Recipe, "read", lambda *a: during.append(gc.isenabled()) or read(*a))
    before = gc.get_freeze_count()
    call(*words)
    assert during == [False] and gc.isenabled() and gc.get_freeze_count() > before


def test_several_seeds_and_images_are_numbered(call: Any) -> None:
    done = call("run", "texturing(a.png, _)", "-m", "$M", "--steps", "2", "-s", "0,5", "-n", "2", "-o", "x.png")
    assert done.stdout.split() == ["x-0.png", "x-1.png", "x-2.png", "x-3.png"]
    assert not Path("x.png").exists()
    assert read_recipe("x-3.png")["image"] == 3
    assert Path("x-2.png").read_bytes() != Path("x-0.png").read_bytes()


@pytest.mark.parametrize(
    ("made", "options"), [("x.png", []), ("x-1.png", ["-s", "3:5", "--scale", "2", "--fit", "pad"])]
)
def test_an_image_repeats_itself_byte_for_byte(call: Any, made: str, options: list[str]) -> None:
    how = [
        "--steps",
        "2",
        "--render-steps",
        "1",
        "--render-guidance",
        "1.5",
        "--render-guidance-interval",
        "0,0.5",
        "--prompt",
        "red",
        "--size",
        "24x40",
    ]
    assert call("run", "union(a.png, b.png)", "-m", "$M", "-o", "x.png", *how, *options).exit_code == 0
    assert call("run", made, "--trust", "-o", "again.png").exit_code == 0
    assert Path("again.png").read_bytes() == Path(made).read_bytes()
    other = call("run", made, "--trust", "-o", "other.png", "--seed", "9")
    assert other.stdout == "other.png\n" and read_recipe("other.png")["seeds"] == [9]
    assert Path("other.png").read_bytes() != Path(made).read_bytes()


def test_a_changed_operand_is_reported(call: Any) -> None:
    plain = call("run", "a.png", "-m", "$M", "-o", "x.png")
    assert plain.exit_code == 0 and "a.png carries no recipe" in plain.stderr and "used as a photo" in plain.stderr
    Image.new("RGB", (8, 8), "red").save("a.png")
    done = call("run", "x.png", "--trust", "-o", "again.png")
    assert done.exit_code == 0 and "a.png changed since the recipe was made" in done.stderr


def test_json_is_one_object(call: Any, folder: Path) -> None:
    done = call("run", "1*a.png", "-m", "$M", "-o", "x.png", "--save-embedding", "e.safetensors", "-s", "2", "--json")
    data = json.loads(done.stdout)
    assert data.pop("seconds") > 0
    assert data == {
        "ok": True,
        "outputs": ["x.png"],
        "embedding": "e.safetensors",
        "expression": "1*a.png",
        "seeds": [2],
        "model": "random",
    }
    assert Path("e.safetensors").is_file()
    bad = call("run", "a.png + nothere.png", "-m", "$M", "-o", "x.png", "--json")
    said = json.loads(bad.stdout)
    error = said["error"]
    assert (bad.exit_code, error["code"], error["exit_code"]) == (2, "photo_error", 2)
    assert "nothere.png" in error["message"] and "nothere.png" in bad.stderr
    assert (said["ok"], said["suggestion"]) == (False, None)


@pytest.mark.parametrize("text", ["union(a.png, unoin(a.png, b.png))", "-0.5*a.png + unoin(a.png, b.png)"])
def test_errors_as_json_say_where_and_what_was_meant(call: Any, text: str) -> None:
    done = call("run", text, "-m", "$M", "-o", "x.png", "--json")
    said = json.loads(done.stdout)
    start, end = said["span"]
    assert (done.exit_code, said["ok"], said["error"]["code"]) == (2, False, "expression_error")
    assert (text[start:end], said["suggestion"]) == ("unoin", "union")


def test_a_model_that_was_meant_is_told_as_json(call: Any) -> None:
    said = json.loads(call("models", "show", "tinny", "--json").stdout)
    assert (said["span"], said["suggestion"]) == (None, "tiny")


@pytest.mark.parametrize("words", [["--version"], ["run"], ["show", "nothing.png"]])
def test_the_package_runs_as_the_command_does(words: list[str]) -> None:
    def run(*command: str) -> tuple[int, str, str]:
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert run(sys.executable, "-m", "pops") == run(str(Path(sys.executable).with_name("pops")))


def test_figures(call: Any) -> None:
    how = ["--steps", "2", "--tree", "t.png", "--equation", "q.png"]
    done = call("run", 'scene(instruct(a.png, "red"), 0.5*b.png + 0.5*c.png)', "-m", "$M", *how)
    assert (done.exit_code, done.stdout) == (0, "t.png\nq.png\n")
    for path in ("t.png", "q.png"):
        assert min(size_of(path)) > 100


def test_only_an_embedding_needs_no_renderer(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pops.models.model import Model

    monkeypatch.setattr(Model, "renderer", lambda self, name=None, library=None: pytest.fail("it was loaded"))
    assert call("run", "1*a.png", "-m", "$M", "--save-embedding", "e.safetensors", "-q").stdout == ""
    assert Path("e.safetensors").is_file()


@pytest.mark.parametrize("name", ["e.npy", "e.ipadpt"])
def test_embeddings_of_other_programs(call: Any, name: str) -> None:
    how = ["-m", "$M", "--save-embedding"]
    assert call("run", "0.5*a.png + 0.5*b.png", *how, name).stdout == f"{name}\n"
    call("run", "0.5*a.png + 0.5*b.png", *how, "e.safetensors")
    for operand in (name, "e.safetensors"):
        done = call("run", f"union({operand}, c.png)", "-m", "$M", "--steps", "2", "-o", f"{operand}.png")
        assert done.exit_code == 0, done.stderr
    a, b = (Image.open(f"{operand}.png").tobytes() for operand in (name, "e.safetensors"))
    assert a == b


def test_an_embedding_of_another_width(call: Any) -> None:
    import numpy as np

    np.save("e.npy", np.ones((1, 7), dtype=np.float32))
    done = call("run", "union(e.npy, a.png)", "-m", "$M", "-o", "x.png")
    assert done.exit_code == 2 and "e.npy has 7 numbers a vector, the space 32" in done.stderr


def test_a_tree_file_equals_its_expression(call: Any) -> None:
    Path("t.yaml").write_text("union: [{texturing: [a.png, b.png]}, _]\nseed: 3\n")
    call("run", "t.yaml", "-m", "$M", "--steps", "2", "-o", "x.png")
    call("run", "union(texturing(a.png, b.png), _) @3", "-m", "$M", "--steps", "2", "-o", "y.png")
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()


def test_dry_run_computes_nothing(call: Any) -> None:
    done = call("run", "union(texturing(a.png, nothere.png), _)", "-m", "$M", "--dry-run")
    assert done.exit_code == 0 and "#2 = union(#1, _)" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "texturng(a.png, b.png)", "-m", "$M", "-o", "x.png"], "did you mean 'texturing'?); choose from "),
        (["run", "texturing(a.png, b.png", "-m", "$M", "-o", "x.png"], "never closed; add a )"),
        (["run", "texturing(a.png)", "-m", "$M", "-o", "x.png"], "takes 2 operands (object, texture), got 1"),
        (["run", "union(a.png, bb.png)", "-m", "$M", "-o", "x.png"], "there is no file bb.png"),
        (["run", "1*a.png", "-m", "$M"], "no output given; add -o out.png"),
        (["run", "1*a.png", "-m", "$M", "-o", "a.png"], "a.png is an operand of the expression"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--tree", "./a.png"], "a.png is an operand"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--tree", "x.png"], "two outputs have the same name"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.gif"], "images are written as .png"),
        (["run", "1*a.png", "-m", "$M", "--save-embedding", "e.pth"], "--save-embedding writes .safetensors"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--seed", "1,x"], "'x' is not a seed"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--size", "big"], "--size is HEIGHTxWIDTH"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--size", "33"], "multiples of 8, got 33x33"),
        (
            ["run", "1*a.png", "-m", "$M", "-o", "x.png", "--fit", "stretch"],
            "making.fit cannot be 'stretch': input should be 'squash', 'crop' or 'pad'",
        ),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--renderer", "swach"], "did you mean 'swatch'"),
        (
            ["run", "1*a.png", "-m", "$M", "-o", "x.png", "--device", "gpu"],
            "device is auto, cpu, cuda or mps",
        ),
        (["run", "1*a.png", "-m", "tinny", "-o", "x.png"], "did you mean 'tiny'"),
        (["run", "1*nothere.png", "-m", "$M", "-o", "x.png", "--sampler", "dim"], "did you mean 'ddim'"),
        (["run", "nothere.yaml", "-m", "$M", "-o", "x.png"], "nothere.yaml"),
        (["run", "~no-such-user/a.png", "-m", "$M", "-o", "x.png"], "there is no file ~no-such-user/a.png"),
        (["run", "+".join(["nothere.png"] * 99), "-m", "$M", "-o", "x.png"], "there is no file nothere.png"),
        (["run", "x" * 300 + ".png", "-m", "$M", "-o", "x.png"], "File name too long"),
        (["run", "x" * 300 + ".safetensors", "-m", "$M", "-o", "x.png"], "does not exist"),
        (["run", "1*a.png", "-m", "$M", "-o", "x" * 300 + ".png"], "cannot be written (File name too long)"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--tree", "a.png/t.png"], "a.png is not a folder"),
        (["run", "1*a.png", "-m", "$M", "--dry-run", "--sampler", "dmp++2m"], "did you mean 'dpm++2m'"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--guidance", "inf"], "making.guidance cannot be inf"),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--render-guidance", "inf"], "rendering.guidance cannot be inf"),
        (["run", "a.png", "-o", "x.png", "--render-guidance-interval", "0.1"], "is START,STOP, shares of the steps"),
        (
            ["run", "a.png", "-o", "x.png", "--render-guidance-interval", "0.8,0.1"],
            "start must be less than its stop",
        ),
        (["run", "1*a.png", "-m", "$M", "-o", "x.png", "--size", "9000"], "at most 4096, got 9000x9000"),
        (["run", "1e39*a.png", "-m", "$M", "-o", "x.png"], "the sum 1e+39*a.png is too large for float32"),
        (["run", f'text("{"red " * 99}")', "-m", "$M", "-o", "x.png"], "use fewer words"),
        (["bench", "toybox", "-m", "$M", "--operators", ","], "--operators is empty"),
        (["show", "a.png"], "a.png carries no recipe"),
        (["show", "nothere.png"], "there is no file nothere.png"),
        (["operators", "show", "unoin", "-m", "$M"], "did you mean 'union'"),
        (["models", "show", "tinny"], "did you mean 'tiny'"),
        (["toybox"], "no output given"),
        (["toybox", "-o", "x.png"], "no caption given"),
        (["toybox", "a teapot", "-o", "x.png", "--size", "33"], "--size must be even"),
    ],
)
def test_a_users_mistake_is_one_clear_message_and_code_2(call: Any, words: list[str], says: str) -> None:
    before = set(Path().iterdir())
    done = call(*words)
    assert done.exit_code == 2
    assert done.stdout == "" and done.stderr.startswith("pops: ") and says in done.stderr
    assert "Traceback" not in done.stderr
    assert set(Path().iterdir()) == before, "no partial files"


@pytest.mark.parametrize("expression", ["-0.5*a.png + b.png", "-a.png + 2*b.png", "- .5 * a.png"])
def test_an_expression_may_begin_with_a_minus(call: Any, expression: str) -> None:
    done = call("run", expression, "-m", "$M", "--render-steps", "1", "-o", "x.png")
    assert done.exit_code == 0, done.stderr
    assert call("run", "-x", "-m", "$M", "-o", "y.png").exit_code == 2, "an unknown option stays one"


def test_an_expressions_mistake_is_underlined(call: Any) -> None:
    done = call("run", "union(a.png, texturng(a.png, b.png))", "-m", "$M", "-o", "x.png")
    message, line, carets = done.stderr.rstrip("\n").split("\n")
    assert line == "  union(a.png, texturng(a.png, b.png))"
    assert carets.startswith(" " * 15 + "^") and "texturng" in message


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (PopsError("the disk is full"), 1, "pops: the disk is full"),
        (ConfigError("no"), 2, "pops: no"),
        (KeyboardInterrupt(), 130, "pops: stopped"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "internal error (ZeroDivisionError: division by zero)",
        ),
    ],
)
def test_exit_codes(call: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str) -> None:
    from pops.studio import Pops

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(Pops, "stream", fail)
    done = call("run", "1*a.png", "-m", "$M", "-o", "x.png")
    assert done.exit_code == code and says in done.stderr and "Traceback" not in done.stderr
    if isinstance(error, ZeroDivisionError):
        assert call("run", "1*a.png", "-m", "$M", "-o", "x.png", "--debug").exception is error


@pytest.mark.parametrize("content", [b"", b"no photo"])
def test_a_broken_photo_alone_is_reported_once(call: Any, content: bytes) -> None:
    Path("bad.png").write_bytes(content)
    done = call("run", "bad.png", "-m", "$M", "-o", "x.png")
    assert done.exit_code == 2 and done.stderr.count("bad.png") == 1


def test_output_paths_are_checked_before_anything_is_computed(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pops.studio import Pops

    monkeypatch.setattr(Pops, "stream", lambda self, *_, **__: pytest.fail("it was computed"))
    Path("x.png").mkdir()
    for words in (["-o", "x.png"], ["-o", "y.png", "--tree", "x.png"], ["-o", "a.png/x.png"]):
        assert call("run", "1*b.png", "-m", "$M", *words).exit_code == 2


def test_a_tree_file_in_a_folder_with_brackets(call: Any) -> None:
    Path("new (1)").mkdir()
    Path("new (1)/t.yaml").write_text("sum: [[1, a.png]]\n")
    assert call("run", "new (1)/t.yaml", "-m", "$M", "-o", "x.png").exit_code == 0


@pytest.mark.parametrize("words", [["run", "a.png", "--steps", "x"], ["run"], ["nothing"], ["show", "a.png", "--no"]])
def test_a_usage_mistake_is_one_json_object_too(call: Any, words: list[str]) -> None:
    done = call(*words, "--json")
    assert done.exit_code == 2 and "Error: " in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "usage_error"
    assert call("run", "--help", "--json").exit_code == 0


def test_usage_mistakes_are_code_2(call: Any) -> None:
    assert call("run").exit_code == 2
    assert call("run", "a.png", "--nothing").exit_code == 2
    assert call("nothing").exit_code == 2


def test_show(call: Any, folder: Path) -> None:
    call("run", "union(a.png, b.png)", "-m", "$M", "--steps", "2", "-s", "7", "-o", "x.png")
    text = call("show", "x.png").stdout
    rows = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert rows["expression"] == "union(a.png, b.png)" and rows["seeds"] == "7" and rows["making.steps"] == "2"
    assert json.loads(call("show", "x.png", "--json").stdout)["loading"]["model"] == str(folder)
    Path("r.json").write_text(call("show", "x.png", "--json").stdout)
    assert call("run", "r.json", "--trust", "-o", "y.png").exit_code == 0
    assert Path("y.png").read_bytes() == Path("x.png").read_bytes()


def test_operators_and_models(call: Any) -> None:
    listed = call("operators", "list", "-m", "$M").stdout
    assert "texturing(object, texture)" in listed and "clothes(garment, ...)" in listed
    assert json.loads(call("operators", "list", "-m", "$M", "--json").stdout)["operators"]["union"]["guidance"] == 8.0
    assert "operand 2: word, a text" in call("operators", "show", "instruct", "-m", "$M").stdout
    assert "kandinsky-2-2" in call("models", "list").stdout
    shown = json.loads(call("models", "show", "$M", "--json").stdout)
    assert shown["space"] == "random-32" and "union" in shown["operators"] and shown["weights_mb"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["models", "pull", "kandinsky-2-2"],
            "(kandinsky-community/kandinsky-2-2-prior) is not on this machine and cannot be",
        ),
        (["models", "pull", "someone/model"], "pops: someone/model is not on this machine and cannot be fetched ("),
        (["models", "pull", "tinny"], "did you mean 'tiny'"),
        (
            ["operators", "pull"],
            "scene, instruct (pOpsPaper/operators) are not on this machine and cannot",
        ),
        (["operators", "pull", "scene"], "connect to the network, or get learned_prior.pth in another way"),
    ],
)
def test_pull_without_a_network_is_one_line_and_code_2(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], says: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    done = call(*words)
    assert done.exit_code == 2 and done.stdout == "" and says in done.stderr
    assert done.stderr.startswith("pops: ") and done.stderr.count("\n") == 1


def test_doctor(call: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pops.models.hub.TINY", folder)
    done = call("doctor", "--offline", "--json")
    rows = {row["check"]: row for row in json.loads(done.stdout)["checks"]}
    assert done.exit_code == 0 and "hub" not in rows
    assert rows["torch"]["state"] == "ok" and "operators: texturing, union" in rows["tiny"]["found"]
    monkeypatch.setattr("pops.models.hub.TINY", folder / "nothing")
    broken = call("doctor", "--offline")
    assert broken.exit_code == 1 and "bad  tiny" in broken.stdout


def test_toybox(call: Any) -> None:
    done = call("toybox", "a tiger teapot on a beach", "-o", "x.png", "--size", "32", "--json")
    data = json.loads(done.stdout)
    assert data["outputs"] == ["x.png"] and data["scene"]["scene"] == "beach"
    assert size_of("x.png") == (32, 32)
    bad = call("toybox", "a tiger teapto", "-o", "y.png")
    assert bad.exit_code == 2 and "teapot" in bad.stderr and not Path("y.png").exists()


def test_progress_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with shell.progress(quiet=False) as quiet_pipe:
        assert quiet_pipe is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with shell.progress(quiet=False) as show:
        assert show is not None
        show(1, 2, "union")
    with shell.progress(quiet=True) as nothing:
        assert nothing is None


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pops.cli.main import app\n"
        "try: app(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "libraries = ('torch', 'diffusers', 'transformers', 'PIL', 'toybox', 'lark')\n"
        "heavy = [m for m in libraries if m in sys.modules]\n"
        "print(heavy, file=sys.stderr)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Examples:" in done.stdout and 'pops run "texturing(teapot.png, tiger.png)" -o out.png' in done.stdout
    assert time.monotonic() - start < 5, "generous: the machine may be busy"
