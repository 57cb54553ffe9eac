"""Stage 3: trains the base prior and the four operators with pops' own trainer, on stored embeddings (encode).

    python -m recipes.tiny.operators prior
    python -m recipes.tiny.operators texturing

Triplets come from families (every operator), grids (texturing, scene and instruct: one object in four materials and
four scenes gives dozens), companies (union) and changes (instruct). The operators are low-rank adapters on the base
prior.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pops.operators.spec import BUILTIN
from pops.prior.transformer import PriorModel
from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.pairs import (
    CHANGE_PICTURES,
    CHANGES,
    COMPANY,
    GRID,
    GRID_PICTURES,
    PICTURES,
    change,
    company,
    family,
    grid,
)
from pops.toybox.words import article
from pops.training.config import TrainConfig
from pops.training.data import EmbeddingData, write_shard
from pops.training.shards import write_tables
from pops.training.trainable import save_prior
from pops.training.trainer import export, train, train_prior
from recipes.tiny import settings
from recipes.tiny.loop import Budget, prepare

OPERATORS = ("texturing", "union", "scene", "instruct")
SPACE = "toybox-clip-256"
# Their default steps and guidance, measured by `pops bench toybox --steps ... --guidance ...` (docs/log.md). A certain
# answer takes one step; with a missing operand there are many answers, and 100 steps draw one of them.
DEFAULTS: dict[str, Any] = {"steps": 1, "guidance": 1.0, "partial_steps": 100, "partial_guidance": 2.0}
GUIDANCE = {"texturing": 2.0}  # a little further from the truth, but patterns are clearer in images
STRENGTH = {"instruct": 1.1}  # adjectives are clearer in images, their objects less: each is read in seven of ten


# Where tiny's training differs from the published recipe. There, some of texturing's samples have a random image as
# both target and first operand, so that a missing texture means the object's own (docs/log.md). Here it means any.
TRAINING: dict[str, dict[str, float]] = {"texturing": {"random_keeps_first": 0.0}}


class Embedded:
    """Embeddings of all training images, looked up by family and grid."""

    def __init__(self, folder: Path = settings.WORK) -> None:
        rows = load_file(folder / "embeds.safetensors")
        self.arrange(rows["embeds"].float(), rows["company"].float(), rows)

    def arrange(self, e: Tensor, company: Tensor, rows: dict[str, Tensor]) -> None:
        """Arranges e [N, D], one row per training image; company: one row per image of the companies."""
        self.e, self.company = e, company
        self.families = int(rows["families"])
        n = len(PICTURES)
        self.by_name = {name: self.e[k : self.families * n : n] for k, name in enumerate(PICTURES)}
        first, last = self.families * n, self.families * n + int(rows["grids"]) * GRID_PICTURES
        g = self.e[first:last].view(-1, GRID_PICTURES, self.e.shape[-1])
        self.changes = self.e[last:].view(-1, CHANGE_PICTURES, self.e.shape[-1])
        cells, swatches, empties, edited = g.split([GRID * GRID, GRID, GRID, GRID], 1)
        self.cells = cells.view(len(g), GRID, GRID, -1)  # grid, scene, material
        self.swatches, self.empties, self.edited = swatches, empties, edited
        self.companies = int(rows["companies"])


def texturing(d: Embedded) -> tuple[Tensor, Tensor]:
    """Returns (operands [N, 2, D], target [N, D]): families, and within each grid's scene every pair of materials."""
    f = d.by_name
    rows = [(f["base"], f["swatch"], f["textured"])]
    for s in range(GRID):
        for a in range(GRID):
            rows += [(d.cells[:, s, a], d.swatches[:, b], d.cells[:, s, b]) for b in range(GRID) if a != b]
    return _stack(rows)


def union(d: Embedded) -> tuple[Tensor, Tensor]:
    """Returns families, and every ordered pair of the companies, as `texturing` does."""
    f = d.by_name
    rows = [(f["studio"], f["other"], f["both"])]
    at = 0
    for seed in range(d.companies):
        c = company(seed)
        e = d.company[at : at + COMPANY + len(c.pairs)]
        at += len(e)
        left, right = (torch.tensor([p[k] for p in c.pairs]) for k in (0, 1))
        rows.append((e[left], e[right], e[COMPANY:]))
    return _stack(rows)


def scene(d: Embedded) -> tuple[Tensor, Tensor]:
    f = d.by_name
    rows = [(f["studio"], f["empty"], f["base"]), (f["elsewhere"], f["empty"], f["base"])]
    for m in range(GRID):
        for a in range(GRID):
            rows += [(d.cells[:, a, m], d.empties[:, b], d.cells[:, b, m]) for b in range(GRID) if a != b]
    return _stack(rows)


def _stack(rows: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    a, b, c = (torch.cat([r[k] for r in rows]) for k in range(3))
    return torch.stack([a, b], 1), c


def instruct(d: Embedded) -> tuple[Tensor, Tensor, list[str], list[str]]:
    """Returns (operands [N, 1, D], target [N, D], words, texts like "a golden dog")."""
    words, texts = [], []
    for seed in range(d.families):
        o = family(seed).edited.objects[0]
        words.append(o.adjectives[0])
        texts.append(f"{article(o.adjectives[0])} {o.category}")
    operands, targets = [d.by_name["base"]], [d.by_name["edited"]]
    specs = [grid(seed) for seed in range(len(d.cells))]
    for s in range(GRID):
        operands.append(d.cells[:, s, 0])
        targets.append(d.edited[:, s])
        for g in specs:
            o = g.edited[s].objects[0]
            words.append(o.adjectives[0])
            texts.append(f"{article(o.adjectives[0])} {o.category}")
    for seed, change_e in enumerate(d.changes):
        operands.append(change_e[:1].expand(CHANGES, -1))
        targets.append(change_e[1:])
        for spec in change(seed).edited:
            o = spec.objects[0]
            words.append(o.adjectives[0])
            texts.append(f"{article(o.adjectives[0])} {o.category}")
    return torch.cat(operands)[:, None], torch.cat(targets), words, texts


def write_data(name: str, folder: Path, published: bool = False) -> None:
    """Writes the training data of one task in pops.training's format, replacing older data.

    published: instruct's target is the input, as in the paper (whose loss pulls towards a text); else the truth.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    d = Embedded()
    if name == "prior":
        text = load_file(settings.WORK / "captions.safetensors")
        write_tables(folder, **_text_tables(text))
        said = text["of"]
        write_shard(folder / "shard-0.safetensors", target=d.e, words=said, text=said)
    elif name == "instruct":
        from recipes.tiny.encode import text_states, tokenizer, towers

        operands, target, words, texts = instruct(d)
        target = operands[:, 0] if published else target
        clip, ids = towers(), tokenizer()
        known, phrases = sorted(ADJECTIVES), sorted(set(texts))
        hidden = []
        for word in known:
            hidden.append(text_states(clip, ids([word], return_tensors="pt")["input_ids"])[1][0])
        tokens = ids(phrases, padding="longest", return_tensors="pt")
        embeds, _ = text_states(clip, tokens["input_ids"], tokens["attention_mask"])
        write_tables(folder, word_hidden=hidden, text_embeds=embeds)
        place = {p: k for k, p in enumerate(phrases)}
        write_shard(
            folder / "shard-0.safetensors",
            target=target,
            operands=operands,
            words=torch.tensor([known.index(w) for w in words]),
            text=torch.tensor([place[t] for t in texts]),
        )
    else:
        operands, target = {"texturing": texturing, "union": union, "scene": scene}[name](d)
        write_shard(folder / "shard-0.safetensors", target=target, operands=operands)
        write_tables(folder, pool=d.by_name["base"][:2000])


def _text_tables(text: dict[str, Tensor]) -> dict[str, Any]:
    hidden = [h[: int(n)] for h, n in zip(text["hidden"], text["length"], strict=True)]
    last = len(hidden) - 1  # encode writes the empty caption last
    return {"word_hidden": hidden, "text_embeds": text["embeds"], "empty": (last, last)}


def operator_config(args: argparse.Namespace, shared: dict[str, Any]) -> TrainConfig:
    how = {"rank": args.rank, "loss": args.loss, "operand_noise": args.noise, **shared}
    return TrainConfig.of(args.task, **how, **TRAINING.get(args.task, {}))


def steps_in(args: argparse.Namespace, shared: dict[str, Any], data: EmbeddingData, trial: int = 40) -> int:
    """Returns how many steps pops' trainer, whose budget is steps alone, makes in --minutes: by a short trial."""
    layers = shared.pop("layers")
    shared = {**shared, "steps": trial, "warmup": 0, "log_every": trial // 2}
    times: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        if args.task == "prior":
            config = TrainConfig.of("prior", **shared)
            train_prior(config, data, Path(out), layers=layers, on_log=lambda _: times.append(time.time()))
        else:
            base = PriorModel.load(settings.home_of_prior())
            train(operator_config(args, shared), data, base, Path(out), on_log=lambda _: times.append(time.time()))
    return max(trial, round(60 * args.minutes * (trial - trial // 2) / (times[1] - times[0])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("prior", *OPERATORS))
    Budget.add_arguments(parser, 4000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--loss", default="mse", help="mse, or instruct for the paper's loss of instruct")
    parser.add_argument("--noise", type=float, default=0.1, help="noise on the operands, standardised units")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--tag", default="", help="a suffix of the run's folder, for comparisons")
    args = parser.parse_args()
    if prepare(args).type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # else pops' trainer takes what accelerate finds
    out = settings.WORK / f"{args.task}{args.tag}"
    write_data(args.task, settings.WORK / "triplets" / args.task, args.loss == "instruct")
    data = EmbeddingData.load(settings.WORK / "triplets" / args.task)
    print(args.task, len(data), "samples", flush=True)
    shared = {
        "steps": args.steps,
        "batch_size": args.batch,
        "lr": args.lr,
        "schedule": "cosine",
        "warmup": 100,
        "precision": "bf16",
        "save_every": 500,
    }

    def log(row: object) -> None:
        print(args.task, json.dumps(row if isinstance(row, dict) else vars(row), default=str), flush=True)

    if args.until is not None:
        args.minutes = max(0.0, args.until - time.time()) / 60
    if args.minutes is not None:
        shared["steps"] = steps_in(args, {**shared, "layers": args.layers}, data)
        print(args.task, shared["steps"], "steps", flush=True)

    if args.task == "prior":
        config = TrainConfig.of("prior", **shared)
        done = train_prior(config, data, out, layers=args.layers, on_log=log)
        save_prior(done.prior, settings.WORK / "model")
        return
    base, config = PriorModel.load(settings.home_of_prior()), operator_config(args, shared)
    done = train(config, data, base, out, on_log=log)
    export(
        done,
        settings.WORK / "model" / "operators" / f"{args.task}{args.tag}",
        base=base,
        space=SPACE,
        spec=replace(BUILTIN[args.task], **_defaults(args.task)),
        provenance={"world": "toybox", "samples": len(data)},
    )


def _defaults(task: str) -> dict[str, Any]:
    own = {"guidance": GUIDANCE.get(task, DEFAULTS["guidance"]), "strength": STRENGTH.get(task, 1.0)}
    return {**DEFAULTS, **own}


if __name__ == "__main__":
    main()
