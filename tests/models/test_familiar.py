"""What a model was trained on: familiar/ of its folder, toybox against pictures like photographs, words, and who is
told: stderr, --json, results and traces."""

from __future__ import annotations

import io
import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import pops
from pops.cli.main import app
from pops.errors import ModelError
from pops.images import load_photo
from pops.models.familiar import Familiar
from pops.models.hub import HUB, TINY
from pops.studio import Pops
from pops.toybox.pairs import PICTURES, draw_family, family
from pops.toybox.words import captions
from pops.toybox.world import CORE

FOLDER = TINY / "familiar"
EXAMPLES = Path(__file__).parents[2] / "examples"
TEAPOT, TIGER = str(EXAMPLES / "objects/teapot.png"), str(EXAMPLES / "textures/tiger.png")
FAST: dict[str, Any] = {"render_steps": 2}
UNLIKE = "unlike all that tiny was trained on (drawings of toybox)"
ADVICE = "--model kandinsky-2-2 (see pops models list)"


@pytest.fixture(scope="module")
def familiar() -> Familiar:
    return Familiar.load(FOLDER)


@pytest.fixture(scope="module")
def tiny() -> Pops:
    return pops.load("tiny", device="cpu")


def noise(seed: int, side: int = 128, power: float = 1.2) -> np.ndarray:
    """Colours whose amplitudes fall with frequency as those of photographs do, 0 to 255."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    f[0, 0] = 1
    planes = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / f**power).real for _ in range(3)]
    pixels = np.stack([p / p.std() for p in planes], -1) @ (1 + 0.3 * rng.normal(size=(3, 3)))
    return (128 + 45 * pixels / pixels.std()).clip(0, 255)


def photo(seed: int, *, on_white: bool = False) -> Image.Image:
    """A picture like a photograph: of a landscape's statistics, or of a shaded, grainy ball on white."""
    pixels = noise(seed)
    if on_white:
        y, x = np.mgrid[-1:1:128j, -1:1:128j]
        light = 0.35 + 0.75 * np.clip(1 - np.hypot(x + 0.3, y + 0.4), 0, 1)
        inside = (np.hypot(x, 1.2 * y) < 0.7)[..., None]
        pixels = np.where(inside, pixels * light[..., None], 255)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with dog.jpg and sea.jpg, like photographs, and toybox's teapot.png and tiger.png."""
    for name, seed in (("dog.jpg", 1), ("sea.jpg", 2)):
        photo(seed).save(tmp_path / name, quality=92)
    shutil.copy(TEAPOT, tmp_path)
    shutil.copy(TIGER, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def called(*words: str) -> Any:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.stderr
    return done


# --- pictures


def test_toybox_is_familiar(familiar: Familiar) -> None:
    """All kinds of pictures that operators take, of test families: as they are, as JPEG, small."""
    drawn: list[torch.Tensor] = []
    for seed in (70_001, 70_002):
        drawn += draw_family(family(seed, "test", "texturing"), 96)[0].values()
    assert len(drawn) == 2 * len(PICTURES)
    images = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in drawn]
    stored = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85)
        stored.append(Image.open(file).convert("RGB"))
    assert familiar.unfamiliar(images) == [False] * len(images)
    assert familiar.unfamiliar(stored) == [False] * len(images)


@pytest.mark.parametrize("kind", ["objects", "textures", "scenes"])
def test_examples_are_familiar(familiar: Familiar, kind: str) -> None:
    paths = sorted((EXAMPLES / kind).glob("*.png"))
    flagged = familiar.unfamiliar([load_photo(path, size=96) for path in paths])
    assert len(paths) > 10 and [p.name for p, bad in zip(paths, flagged, strict=True) if bad] == []


@pytest.mark.parametrize("on_white", [False, True])
def test_photographs_are_not(familiar: Familiar, on_white: bool) -> None:
    images = [load_photo(photo(seed, on_white=on_white), size=96) for seed in range(12)]
    assert familiar.unfamiliar(images) == [True] * 12


def test_what_tiny_renders_is_familiar(tiny: Pops, familiar: Familiar) -> None:
    made = tiny(f"scene({TEAPOT}, {EXAMPLES / 'scenes/beach.png'})", seed=[0, 1], render_steps=8)
    assert familiar.unfamiliar(list(made)) == [False, False]


def test_a_picture_is_judged_the_same_alone_and_in_a_batch(familiar: Familiar) -> None:
    images = [load_photo(photo(seed), size=96) for seed in range(3)] + [load_photo(TEAPOT, size=96)]
    together = familiar.strangeness(images)
    alone = torch.cat([familiar.strangeness([image]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert len(set(together.tolist())) == 4 and familiar.unfamiliar([]) == []


# --- words


def test_captions_and_adjectives_are_known(familiar: Familiar) -> None:
    texts = [t for seed in range(70_000, 70_060) for s in family(seed, "test").pictures().values() for t in captions(s)]
    rng = random.Random(0)
    texts += [" ".join(rng.sample(CORE.adjectives, 3)) for _ in range(50)]
    texts += [" ".join(rng.sample(text.split(), len(text.split()))) for text in texts[:300]]
    assert len(texts) > 1500 and [text for text in texts if familiar.unknown(text)] == []


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("an astronaut riding a horse", ("astronaut", "riding", "horse")),
        ("Golden", ()),
        ("golden, SPIKY; and very mossy!", ()),
        ("two dogs' castles and the cat's mugs", ("two",)),
        ("a dot", ()),  # of "polka dots"
        ("tiger:1.5 fur:-1 rabbit", ("fur",)),
        ("a Unicorn and a unicorn", ("unicorn",)),
        ("ein rotes Auto", ("ein", "rotes", "Auto")),
        ("赤い犬", ("赤い犬",)),
        ("", ()),
        ("12 + 3", ()),
    ],
)
def test_unknown_words_are_named(familiar: Familiar, text: str, unknown: tuple[str, ...]) -> None:
    assert {w.lower() for w in familiar.unknown(text)} == {w.lower() for w in unknown}


# --- who is told


def test_one_line_names_what_is_unlike(here: Path) -> None:
    done = called("run", "scene(dog.jpg, sea.jpg)", "-o", "out.png", "--render-steps", "2")
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"pops: dog.jpg and sea.jpg look {UNLIKE}; the result will not resemble them.")
    assert lines[0].endswith(ADVICE) and "kandinsky-2-2" in HUB
    assert done.stdout.strip() == "out.png"


def test_one_line_for_photographs_and_words(here: Path) -> None:
    done = called("run", 'instruct(dog.jpg, "shiny")', "-o", "out.png", "--render-steps", "2")
    (line,) = done.stderr.strip().splitlines()
    assert f"dog.jpg looks {UNLIKE}, and it does not know the word 'shiny'" in line


def test_toybox_is_told_nothing(here: Path) -> None:
    done = called("run", "texturing(teapot.png, tiger.png)", "-o", "out.png", "--render-steps", "2")
    assert done.stderr == ""
    done = called("run", 'instruct(teapot.png, "golden")', "-o", "b.png", "--render-steps", "2", "--json")
    assert "warnings" not in json.loads(done.stdout)


def test_json_has_a_warning_for_each_operand(here: Path) -> None:
    expression = 'scene(instruct(dog.jpg, "an astronaut riding"), text("a horse"))'
    done = called("run", expression, "-o", "out.png", "--render-steps", "2", "--json")
    told = json.loads(done.stdout)["warnings"]
    assert [(w["code"], w["operand"]) for w in told] == [
        ("out-of-depth", "dog.jpg"),
        ("out-of-depth", "an astronaut riding"),
        ("out-of-depth", "a horse"),
    ]
    assert told[0]["message"].startswith(f"dog.jpg looks {UNLIKE}; the result will not resemble it.")
    assert told[1]["message"].startswith("tiny does not know the words 'astronaut' and 'riding'")
    assert told[2]["message"].startswith("tiny does not know the word 'horse' ")
    assert all(w["message"].endswith(ADVICE) and "\n" not in w["message"] for w in told)


def test_many_operands_stay_one_short_line(here: Path) -> None:
    names = [f"{i}.jpg" for i in range(6)]
    for i, name in enumerate(names):
        photo(i + 20).save(here / name)
    done = called("run", " + ".join(f"0.1*{name}" for name in names), "-o", "out.png", "--render-steps", "2")
    (line,) = done.stderr.strip().splitlines()
    assert "0.jpg, 1.jpg, 2.jpg and 3 more look unlike" in line and len(line) < 300


@pytest.mark.parametrize(
    ("layout", "content", "named"),
    [
        ("dog.jpg", "tiger", ["dog.jpg"]),  # a layout that no tower reads
        ("teapot.png", "dog.jpg", ["dog.jpg"]),
        ("teapot.png", "an astronaut:1.5", ["astronaut"]),
        ("a horse", "a cactus", ["horse"]),
        ("teapot.png", "a tiger:0.5 teapot", []),
    ],
)
def test_mixes(here: Path, layout: str, content: str, named: list[str]) -> None:
    done = called("mix", layout, content, "-o", "out.png", "--steps", "2", "--size", "32", "--k-max", "1")
    lines = [line for line in done.stderr.splitlines() if ADVICE in line]
    assert len(lines) == (1 if named else 0)
    assert all(name in lines[0] for name in named)


def test_a_grid_says_it_once(here: Path) -> None:
    arguments = ("mix", "dog.jpg", "tiger", "-o", "g.png", "--steps", "2", "--size", "32", "--k-max", "1")
    done = called(*arguments, "--sweep", "nu=0.1:0.9:2", "--json")
    assert len([line for line in done.stderr.splitlines() if ADVICE in line]) == 1
    assert [w["operand"] for w in json.loads(done.stdout)["warnings"]] == ["dog.jpg"]


def test_trees_and_their_figures(here: Path) -> None:
    (here / "tree.yaml").write_text("scene:\n  - texturing: [teapot.png, sea.jpg]\n  - dog.jpg\n")
    done = called("run", "tree.yaml", "--tree", "figure.png", "--render-steps", "2")
    (line,) = done.stderr.strip().splitlines()
    assert "sea.jpg and dog.jpg look" in line


def test_search(here: Path) -> None:
    (here / "photos").mkdir()
    shutil.copy(TEAPOT, here / "photos")
    called("index", "photos", "-o", "a.library", "--quiet")
    done = called("search", "dog.jpg", "--library", "a.library", "--json")
    assert [w["operand"] for w in json.loads(done.stdout)["warnings"]] == ["dog.jpg"] and ADVICE in done.stderr
    done = called("search", "teapot.png", "--library", "a.library", "--json")
    assert "warnings" not in json.loads(done.stdout) and done.stderr == ""


def test_control_images_are_not_judged(here: Path) -> None:
    control = ("--control", "depth=dog.jpg", "--render-steps", "2")
    assert called("run", "texturing(teapot.png, tiger.png)", "-o", "out.png", *control).stderr == ""


def test_results_and_traces_say_it(tiny: Pops, here: Path) -> None:
    result = tiny.run(pops.Recipe.of('union(dog.jpg, instruct(teapot.png, "shiny"))', **FAST))
    assert [(w.operand, w.words) for w in result.warnings] == [("dog.jpg", ()), ("shiny", ("shiny",))]
    assert len(result.notes) == 1 and "dog.jpg" in result.notes[0]
    assert result.trace is not None
    marked = result.trace.unfamiliar
    assert [getattr(n, "path", getattr(n, "text", "")) for n in marked] == ["dog.jpg", "shiny"]
    assert tiny.run(pops.Recipe.of("union(teapot.png, tiger.png)", **FAST)).warnings == []


def test_images_from_python(tiny: Pops, here: Path) -> None:
    with pytest.warns(UserWarning, match=r"the image \$given1 looks unlike"):
        tiny.apply("texturing", photo(3), TIGER)
    with pytest.warns(UserWarning, match=r"dog\.jpg looks unlike"):
        tiny.apply("texturing", Image.open("dog.jpg"), TIGER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.apply("texturing", Image.open(TEAPOT), TIGER)


def test_a_model_that_does_not_say_flags_nothing(call: Any, folder: Path) -> None:
    done = call("run", 'instruct(a.png, "an astronaut")', "-o", "x.png", "-m", "$M", "--save-embedding", "e.npy")
    assert ADVICE not in done.stderr
    model = pops.load(folder)
    assert model.model.familiar is None
    assert model.trace('instruct(a.png, "an astronaut")').unfamiliar == {}


# --- the folder


def spoilt(tmp_path: Path, *, config: dict[str, Any] | None = None, tensors: Any = None) -> Path:
    shutil.copytree(FOLDER, tmp_path / "familiar")
    path = tmp_path / "familiar" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))
    if tensors is not None:
        weights = load_file(FOLDER / "model.safetensors")
        tensors(weights)
        save_file(weights, tmp_path / "familiar" / "model.safetensors")
    return tmp_path / "familiar"


@pytest.mark.parametrize(
    "config",
    [{"side": 0}, {"side": True}, {"side": "96"}, {"threshold": None}, {"about": 3}, {"words": "a b"}, {"words": [1]}],
)
def test_a_wrong_value_is_told(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=rf"config\.json: {next(iter(config))} cannot be .*fetch or make it again"):
        Familiar.load(spoilt(tmp_path, config=config))


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("head.bias"),
        lambda w: w.update(more=torch.zeros(1)),
        lambda w: w.update({"head.weight": torch.zeros(3)}),
        lambda w: w.update({"conv.1.weight": torch.zeros(32, 3, 3, 3)}),
        lambda w: w.clear(),
    ],
)
def test_other_tensors_are_told(tmp_path: Path, change: Any) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors does not hold the tensors of familiar/"):
        Familiar.load(spoilt(tmp_path, tensors=change))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_absent_or_broken_file_is_told(tmp_path: Path, name: str) -> None:
    folder = spoilt(tmp_path)
    (folder / name).write_bytes(b"not at all")
    with pytest.raises(ModelError, match=name):
        Familiar.load(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        Familiar.load(folder)


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 200_000
