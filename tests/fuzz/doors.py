"""The doors: for each, sound inputs, a way to damage one, and the reader that takes the result.

An input is a file: its name (of a folder's file, its path in it) and its bytes. So a finding can be kept and repeated.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fuzz import mutations, seeds
from pops.errors import CheckpointError, ModelError, PopsError
from pops.expression import load as load_tree
from pops.expression import parse
from pops.expression.trees import from_tree
from pops.magicmix.spec import MIX
from pops.operators.spec import BUILTIN

CALLS: dict[str, Any] = {**BUILTIN, MIX.name: MIX}


@dataclass(frozen=True)
class Input:
    """One input: a file's name or path within a folder, and its bytes."""

    name: str
    content: bytes

    def write(self, folder: Path) -> Path:
        """Writes the file into a folder, in place of an older one, and returns its path."""
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link to a sound file
        path.write_bytes(self.content)
        return path


@dataclass
class Door:
    """A door. home: a folder of its own, made by `prepare`."""

    home: Path
    name = ""

    def prepare(self) -> None:
        """Makes the sound inputs."""

    def draw(self, rng: random.Random) -> Input:
        """Returns a damaged input."""
        raise NotImplementedError

    def read(self, given: Input) -> int:
        """Reads an input as pops does; returns the bytes that its result takes."""
        raise NotImplementedError


@dataclass
class Photos(Door):
    name = "photos"
    kinds: dict[str, list[bytes]] = field(default_factory=dict)

    def prepare(self) -> None:
        self.kinds = seeds.photos(self.home)

    def draw(self, rng: random.Random) -> Input:
        suffix = rng.choice(list(self.kinds))
        other = rng.choice(list(self.kinds)) if rng.random() < 0.05 else suffix
        return Input(f"a{other}", mutations.mutated_bytes(rng, self.kinds[suffix]))

    def read(self, given: Input) -> int:
        from pops.images import find_recipe, load_photo, read_rgb

        path = given.write(self.home)
        with suppress(PopsError):
            find_recipe(path)
        load_photo(path, size=64, fit=("squash", "crop", "pad")[len(given.content) % 3])
        photo = read_rgb(path)
        assert photo.mode == "RGB"
        return 3 * photo.width * photo.height


@dataclass
class Expressions(Door):
    name = "expressions"

    def draw(self, rng: random.Random) -> Input:
        text = mutations.mutated_text(rng, seeds.EXPRESSIONS)
        return Input("a.txt", text.encode("utf-8", "surrogatepass"))

    def read(self, given: Input) -> int:
        _through(given.content.decode("utf-8", "surrogatepass"))
        return 0


def _through(text: str) -> None:
    """Parses an expression, plans it, writes it as text and as a tree, and reads both again."""
    expression = parse(text)
    assert from_tree(expression.tree()) == expression.root
    assert len(text) > 50_000 or parse(str(expression)).root == expression.root
    str(expression.plan(CALLS))


@dataclass
class Trees(Door):
    name = "trees"

    def draw(self, rng: random.Random) -> Input:
        if rng.random() < 0.5:
            text = mutations.mutated_text(rng, seeds.YAMLS, (*mutations.PIECES, *mutations.SCALARS))
            return Input(rng.choice(("a.yaml", "a.yml")), text.encode("utf-8", "surrogatepass"))
        text = mutations.mutated_json(rng, rng.choice(seeds.TREES))
        name = rng.choice(("a.json", "a.json", "a.yaml"))
        return Input(name, text.encode("utf-8", "surrogatepass"))

    def read(self, given: Input) -> int:
        expression = load_tree(given.write(self.home))
        assert from_tree(expression.tree()) == expression.root
        str(expression.plan(CALLS))
        return 0


@dataclass
class Recipes(Door):
    name = "recipes"

    def draw(self, rng: random.Random) -> Input:
        text = mutations.mutated_json(rng, rng.choice((seeds.RECIPE, seeds.GRID)))
        if rng.random() < 0.2:
            text = mutations.mutated_text(rng, [text])
        return Input("a.json", text.encode("utf-8", "surrogatepass"))

    def read(self, given: Input) -> int:
        from pops.recipe import Recipe

        recipe = Recipe.read(given.write(self.home))
        assert Recipe.from_json(recipe.to_json()) == recipe
        recipe.in_python()
        recipe.changed(seed=3, steps=2)
        parse(recipe.expression).plan(CALLS)
        return 0


@dataclass
class Embeddings(Door):
    name = "embeddings"
    kinds: dict[str, list[bytes]] = field(default_factory=dict)

    def prepare(self) -> None:
        self.kinds = seeds.embeddings(self.home)

    def draw(self, rng: random.Random) -> Input:
        suffix = rng.choice((".safetensors", ".safetensors", ".npy", ".npy", ".ipadpt", ".pt"))
        if suffix == ".safetensors" and rng.random() < 0.5:
            return Input("a.safetensors", _header(rng, rng.choice(self.kinds[suffix])))
        return Input(f"a{suffix}", mutations.mutated_bytes(rng, self.kinds[suffix]))

    def read(self, given: Input) -> int:
        from pops.embedding import Embedding
        from pops.magicmix.latents import is_latent

        path = given.write(self.home)
        is_latent(path)
        embedding = Embedding.load(path)
        assert bool(embedding.vectors.isfinite().all())
        return 8 * embedding.vectors.numel()


def _header(rng: random.Random, content: bytes) -> bytes:
    """Changes the JSON of a safetensors file's header, and its length with it."""
    length = int.from_bytes(content[:8], "little")
    text = mutations.mutated_json(rng, json.loads(content[8 : 8 + length])).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@dataclass
class Folders(Door):
    """Files of a model's and an operator's folder without a manifest, whose readers must notice by themselves."""

    name = "folders"
    files: dict[str, bytes] = field(default_factory=dict)

    def prepare(self) -> None:
        from folders import write_model
        from pops.operators.checkpoint import save_operator
        from pops.prior.transformer import PriorModel

        sound = write_model(self.home / "sound")
        base = PriorModel.load(sound)
        weights = {"proj_in.weight.delta": 0.1 * torch.randn(base.transformer.state_dict()["proj_in.weight"].shape)}
        save_operator(sound / "operators" / "union", BUILTIN["union"], weights, base=base, space="random-32")
        (sound / "operators" / "union" / "manifest.json").unlink()
        about = sound / "operators" / "union" / "operator.json"
        told = json.loads(about.read_text())
        about.write_text(json.dumps({k: v for k, v in told.items() if k != "manifest"}))
        self.files = {p.relative_to(sound).as_posix(): p.read_bytes() for p in sorted(sound.rglob("*")) if p.is_file()}
        Image.new("RGB", (8, 8), "red").save(self.home / "red.png")

    def draw(self, rng: random.Random) -> Input:
        name = rng.choice(list(self.files))
        content = self.files[name]
        if name.endswith(".json") and rng.random() < 0.7:
            return Input(name, mutations.mutated_json(rng, json.loads(content)).encode("utf-8", "surrogatepass"))
        if name.endswith(".safetensors") and rng.random() < 0.5:
            return Input(name, _header(rng, content))
        return Input(name, mutations.mutated_bytes(rng, [content]))

    def read(self, given: Input) -> int:
        import pops

        folder = self.home / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.home / "sound", folder, copy_function=os.link)
        given.write(folder)
        p = pops.load(folder, device="cpu")
        part = given.name.split("/")[0]
        if part in ("image_encoder", "image_processor"):
            p.embed(self.home / "red.png")
        elif part in ("text_encoder", "tokenizer"):
            p.model.space.encode_texts(["red tiger"])
        elif part == "renderer":
            p.renderer()
        else:
            p.apply("union", self.home / "red.png", self.home / "red.png", steps=1)
        return 0


@dataclass
class Runs(Door):
    """Training checkpoints, configs and logs."""

    name = "runs"
    files: dict[str, bytes] = field(default_factory=dict)

    def prepare(self) -> None:
        from safetensors.torch import save

        from pops.training.config import TrainConfig

        config = TrainConfig.of("union", steps=4, batch_size=2).to_json()
        about = {"format": "pops.training", "version": "1", "config": config, "step": "4", "base": "x", "data": "y"}
        tensors = {"param/a": torch.ones(2, 3), "ema/a": torch.ones(2, 3)}
        rows = "".join(json.dumps({"step": i, "loss": 0.5}) + "\n" for i in range(1, 5))
        self.files = {
            "checkpoint.safetensors": save(tensors, about),
            "config.json": config.encode(),
            "log.jsonl": rows.encode(),
            "shard.safetensors": save({"target": torch.ones(3, 8), "operands": torch.ones(3, 2, 8)}),
        }

    def draw(self, rng: random.Random) -> Input:
        name = rng.choice(list(self.files))
        content = self.files[name]
        if name == "config.json" and rng.random() < 0.7:
            return Input(name, mutations.mutated_json(rng, json.loads(content)).encode("utf-8", "surrogatepass"))
        if name.endswith(".safetensors") and rng.random() < 0.6:
            return Input(name, _header(rng, content))
        return Input(name, mutations.mutated_bytes(rng, [content]))

    def read(self, given: Input) -> int:
        from pops.training import checkpoints, shards
        from pops.training.config import TrainConfig

        path = given.write(self.home)
        match given.name:
            case "checkpoint.safetensors":
                meta, _ = checkpoints.read(path)
                TrainConfig.from_json(meta["config"], where=str(path))
            case "config.json":
                TrainConfig.from_json(given.content.decode("utf-8", "replace"), where=str(path))
            case "log.jsonl":
                checkpoints.trim_log(path, 2)
            case _:
                shards.check_samples(shards._read(path, shards.SHARD_KEYS), str(path), {})
        return 0


@dataclass
class Manifests(Door):
    """A file of a folder with a manifest that was removed or changed by a bit: always told by its name."""

    name = "manifests"
    folders: tuple[Path, ...] = ()

    def prepare(self) -> None:
        from pops.models.hub import TINY

        self.folders = (TINY, TINY / "operators" / "union")

    def draw(self, rng: random.Random) -> Input:
        folder = rng.choice(self.folders)
        path = rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file()])
        name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        if rng.random() < 0.3:
            return Input(name, b"")  # stands for its removal
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return Input(name, bytes(content))

    def read(self, given: Input) -> int:
        import pops
        from pops.loading.manifest import verify

        shutil.rmtree(self.home / "copy", ignore_errors=True)
        which, _, inside = given.name.partition("/")
        source = next(folder for folder in self.folders if folder.name == which)
        copy = Path(shutil.copytree(source, self.home / "copy" / which, copy_function=os.link))
        Input(inside, given.content).write(copy) if given.content else (copy / inside).unlink()
        try:
            if which == "tiny":
                pops.load(copy, device="cpu").model.space  # noqa: B018  # the first part: nothing is computed yet
            else:
                verify(copy, error=CheckpointError)
        except (ModelError, CheckpointError) as error:
            last = inside.rpartition("/")[2]
            assert last in str(error) or str((copy / inside).parent) in str(error), f"{inside} is not named: {error}"
            raise
        raise AssertionError(f"nobody noticed that {inside} is damaged")


@dataclass
class Commands(Door):
    """The command line in this process: an expression, a tree, a recipe or a photo, planned or shown."""

    name = "commands"
    doors: tuple[Door, ...] = ()

    def prepare(self) -> None:
        self.doors = tuple(kind(self.home) for kind in (Expressions, Trees, Recipes, Photos))
        for door in self.doors:
            door.prepare()

    def draw(self, rng: random.Random) -> Input:
        return rng.choice(self.doors).draw(rng)

    def read(self, given: Input) -> int:
        from typer.testing import CliRunner

        from pops.cli.main import app

        words = ["run", str(given.write(self.home)), "--dry-run"]
        if given.name == "a.txt":
            words[1] = given.content.decode("utf-8", "surrogatepass").replace("\0", "")
        elif given.name == "a.json" and len(given.content) % 2:
            words = ["show", words[1]]
        done = CliRunner().invoke(app, words)
        assert done.exit_code in (0, 1, 2), f"exit code {done.exit_code}"
        told = done.stderr
        assert "internal error" not in told and "Traceback" not in told, told[:2000]
        assert done.exit_code == 0 or ("pops: " in told or "Usage" in told), told[:2000]
        assert len(told) < 3000, f"{len(told)} characters on stderr: {told[:2000]}"
        return 0


DOORS: dict[str, Callable[[Path], Door]] = {
    kind.name: kind for kind in (Photos, Expressions, Trees, Recipes, Embeddings, Folders, Runs, Manifests, Commands)
}
