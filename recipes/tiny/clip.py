"""Stage 2a: trains the CLIP towers, transformers' own classes, from scratch on captions and auxiliary tasks.

    python -m recipes.tiny.clip --steps 3000

Contrast with captions alone learns scene and colour and, much later, shape (docs/log.md). So additional heads, which
are discarded afterwards, predict from the embedding (names of object, material, scene and adjective; a thumbnail of the
image, its masks and its depth) and from every patch (masks, depth and category there): shape is learned at once, and
the embedding keeps the object's appearance for the renderer.
"""

from __future__ import annotations

import argparse
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES
from pops.toybox.pairs import GRID_PICTURES, PICTURES
from pops.toybox.scenes import SCENES
from recipes.tiny import data, settings
from recipes.tiny.loop import Budget, Stage, compiled, half, prepare
from recipes.tiny.tokenizer import load_or_write

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # the image processor's, written into tiny's preprocessor config
COUNTS = (len(CATEGORIES), len(CATEGORIES), len(MATERIALS), len(MATERIALS), len(SCENES), len(ADJECTIVES))
GRID = settings.SIZE // int(settings.VISION["patch_size"])
CELL = settings.THUMB // GRID


class Towers(nn.Module):
    """Both towers, the temperature, and the heads that only training uses."""

    def __init__(self, vocabulary: int, start: int, end: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                image_size=settings.SIZE, projection_dim=settings.DIM, hidden_act="gelu", **settings.VISION
            )
        )
        self.text = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=vocabulary,
                projection_dim=settings.DIM,
                max_position_embeddings=77,
                hidden_act="gelu",
                bos_token_id=start,
                eos_token_id=end,
                pad_token_id=end,
                **settings.TEXT,
            )
        )
        self.temperature = nn.Parameter(torch.tensor(2.66))
        width = int(settings.VISION["hidden_size"])
        self.names = nn.ModuleList(nn.Linear(settings.DIM, n + 1) for n in COUNTS)  # the last class: none
        self.thumb = nn.Sequential(nn.Linear(settings.DIM, 768), nn.GELU(), nn.Linear(768, 6 * settings.THUMB**2))
        self.cells = nn.Linear(width, 3 * CELL * CELL + len(CATEGORIES) + 1)

    def look(
        self, pixels: Tensor, keep: float = 1.0, gen: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes pixels [B, 3, S, S] in -1..1 => embedding [B, DIM], patch states [B, n, W], patch indices [B, n].

        keep < 1 uses a random share of the patches (FLIP, arXiv 2212.00794): cheaper steps early in training.
        """
        body = self.vision.vision_model
        h = body.embeddings(pixels)
        patches = h.shape[1] - 1
        n = max(1, round(patches * keep))
        if n < patches:
            index = torch.rand(len(h), patches, generator=gen, device=h.device).argsort(1)[:, :n]
            h = torch.cat([h[:, :1], h[:, 1:].gather(1, index[..., None].expand(-1, -1, h.shape[-1]))], 1)
        else:
            index = torch.arange(patches, device=h.device).expand(len(h), -1)
        h = body.encoder(inputs_embeds=body.pre_layrnorm(h)).last_hidden_state
        e = self.vision.visual_projection(body.post_layernorm(h[:, 0]))
        return e, h[:, 1:], index


def contrastive(images: Tensor, texts: Tensor, temperature: Tensor, clash: Tensor) -> Tensor:
    """Returns symmetric InfoNCE; `clash` marks off-diagonal pairs that are true, too, which are left out."""
    logits = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T * temperature.exp().clamp_max(100)
    logits = logits.masked_fill(clash, -1e4)
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Lesson:
    """Batches of whole families (their images are each other's hard negatives) and the losses on them.

    Pictures and tokens lie on the device; rows and captions are drawn on the CPU.
    """

    def __init__(
        self,
        pictures: data.Pictures,
        captions: data.Captions,
        tokens: dict[str, Tensor],
        families: int,
        device: torch.device,
    ) -> None:
        self.pictures, self.captions, self.families, self.device = pictures, captions, families, device
        self.images, self.guides, self.labels = (
            v.to(device) for v in (pictures.images, pictures.guides, pictures.labels)
        )
        self.tokens = {k: v.to(device) for k, v in tokens.items()}
        self.lengths = tokens["attention_mask"].sum(1)
        self.sets = [frozenset(rows) for rows in captions.of]

    def batch(self, step: int, gen: torch.Generator) -> tuple[Tensor, list[int]]:
        """Draws whole families, and half of one grid per four families."""
        n, p = len(PICTURES), self.pictures
        picked = torch.randint(p.families, (self.families,), generator=gen)
        rows = [(picked[:, None] * n + torch.arange(n)).flatten()]
        for g in torch.randint(max(p.grids, 1), (self.families // 4 if p.grids else 0,), generator=gen).tolist():
            rows.append(
                p.first_grid + g * GRID_PICTURES + torch.randperm(GRID_PICTURES, generator=gen)[: GRID_PICTURES // 2]
            )
        every = torch.cat(rows)
        return every, self.captions.draw(every, random.Random(step))

    def losses(
        self, towers: Towers, step: int, gen: torch.Generator, keep: float
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        rows, said = self.batch(step, torch.Generator().manual_seed(gen.initial_seed() + 1))
        at = rows.to(self.device)
        pixels, guides, labels = data.to_unit(self.images[at]), self.guides[at].float() / 255, self.labels[at]
        noise = 0.03 * torch.randn(pixels.shape, generator=gen, device=self.device)
        e, states, index = towers.look(pixels + noise, keep, gen)
        length, words = int(self.lengths[said].max()), torch.tensor(said, device=self.device)
        ids, mask = self.tokens["input_ids"][words], self.tokens["attention_mask"][words]
        t = towers.text(input_ids=ids[:, :length], attention_mask=mask[:, :length]).text_embeds
        clash = torch.tensor(
            [[j != i and said[j] in self.sets[int(r)] for j in range(len(said))] for i, r in enumerate(rows)]
        ).to(self.device)
        match = contrastive(e.float(), t.float(), towers.temperature, clash)
        names, right = self.names(towers, e.float(), labels)
        look = self.look(towers, e.float(), pixels, guides)
        cells = self.cells(towers, states.float(), index, guides, labels)
        size = (e.float().square().mean() - 1).square() + (t.float().square().mean() - 1).square()
        loss = match + names + 4.0 * look + 2.0 * cells + 0.05 * size
        parts = {"match": match, "names": names, "look": look, "cells": cells}
        return loss, {**{k: v.detach() for k, v in parts.items()}, **right}

    def names(self, towers: Towers, e: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total, right = e.new_zeros(()), {}
        for k, (head, n) in enumerate(zip(towers.names, COUNTS, strict=True)):
            target = torch.where(labels[:, k] < 0, torch.full_like(labels[:, k], n), labels[:, k])
            logits = head(e)
            weight = torch.ones(n + 1, device=e.device)
            weight[n] = 0.2
            total = total + F.cross_entropy(logits, target, weight=weight)
            known = labels[:, k] >= 0
            if k in (0, 2, 4, 5):
                name = ("object", "", "material", "", "scene", "adjective")[k]
                right[name] = ((logits.argmax(1) == target) & known).sum() / known.sum().clamp_min(1)
        return total, right

    def look(self, towers: Towers, e: Tensor, pixels: Tensor, guides: Tensor) -> Tensor:
        small = F.avg_pool2d(pixels, settings.SIZE // settings.THUMB) / 2 + 0.5
        want = torch.cat([small, guides], 1)
        return (towers.thumb(e).view_as(want) - want).abs().mean()

    def cells(self, towers: Towers, states: Tensor, index: Tensor, guides: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of predicting, from each patch, its masks, its depth and the category it mostly shows."""
        blocks = F.unfold(guides, CELL, stride=CELL).transpose(1, 2)  # [B, GRID^2, 3 * CELL^2]
        want = blocks.gather(1, index[..., None].expand(-1, -1, blocks.shape[-1]))
        out = towers.cells(states)
        told, named = out[..., : want.shape[-1]], out[..., want.shape[-1] :]
        area = CELL * CELL
        a, b = want[..., :area].mean(-1), want[..., area : 2 * area].mean(-1)
        none = len(CATEGORIES)
        target = torch.full(a.shape, none, device=a.device)
        target = torch.where(a > 0.5, labels[:, :1], target)
        target = torch.where(b > 0.5, labels[:, 1:2], target)
        edge = ((a + b) > 0.15) & (target == none)  # too little of an object to predict its name
        target = torch.where((target < 0) | edge, torch.full_like(target, -100), target)
        weight = torch.ones(none + 1, device=a.device)
        weight[none] = 0.25
        name = F.cross_entropy(named.flatten(0, 1), target.flatten(), weight=weight)
        return (told - want).abs().mean() + 0.25 * name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Budget.add_arguments(parser, 3000)
    parser.add_argument(
        "--families", type=int, default=6, help="families a batch, of nine pictures each; grids come on top"
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--keep", type=float, default=0.6, help="share of patches looked at in the first 70 %")
    args = parser.parse_args()
    device = prepare(args)
    pictures = data.load(shrunk=True)
    captions = data.load_captions(pictures.families, pictures.grids, pictures.changes)
    tokenizer = load_or_write()
    tokens = dict(tokenizer(captions.texts, padding="longest", truncation=True, return_tensors="pt"))
    towers = Towers(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id).to(device)
    print({n: round(sum(p.numel() for p in m.parameters()) / 1e6, 2) for n, m in towers.named_children()}, flush=True)
    stage = Stage("clip", towers, Budget.of(args), args.lr, ema=0.995, weight_decay=0.05, betas=(0.9, 0.98))
    lesson = Lesson(pictures, captions, tokens, args.families, device)
    body = towers.vision.vision_model.encoder
    body.forward = compiled(body.forward, device)  # a step of many sizes: captions differ in length

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        keep = args.keep if stage.share < 0.7 else 1.0
        with half(device):
            return lesson.losses(towers, step, stage.generator(), keep)

    stage.run(step_loss)


if __name__ == "__main__":
    main()
