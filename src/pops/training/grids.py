"""The validation grid: operands, truth, average, and results of two seeds and two guidances, as images of the renderer.

It is written beside a checkpoint whenever its weights are the best so far, as long as that takes little of the run's
time, and in the end.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pops.data import Folder
from pops.errors import PopsError
from pops.files import shown
from pops.images import load_photo, save_picture
from pops.operators.operator import Operator
from pops.operators.spec import OperatorSpec
from pops.seeds import generators
from pops.training.config import TrainConfig
from pops.training.data import make_batch
from pops.training.samples import ShardSamples, average_of, plain_operands

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.models.model import Model
    from pops.prior.transformer import PriorModel
    from pops.progress import OnNote
    from pops.render.base import Renderer

GRID = "validation.png"
SHARE = 0.05  # of the run's time that grids before the last one may take
SEEDS = (0, 1)
STRONGER = 3.0  # the second guidance of an operator whose own is none


class Grids:
    """Draws the grid of a run. Nothing is drawn where the model has no renderer here, and a note says so."""

    def __init__(
        self, model: Model, spec: OperatorSpec, held: ShardSamples, out: Path, rows: int, folder: Folder | None
    ) -> None:
        """held: held-out samples, of which the first `rows` are shown; folder: of their pictures, if it is known."""
        self.model, self.spec, self.out = model, spec, out
        self.held = ShardSamples(held.shards, held.rows[:rows].tolist(), ragged=held.ragged)
        ids = held.shards.batch(self.held.rows).ids if rows else []
        found = {row.id: row for row in folder.rows()} if folder is not None else {}
        self.examples = [found.get(id_) for id_ in ids]
        self.ids = ids
        self.begun, self.spent = time.monotonic(), 0.0
        self.fixed: list[list[Image.Image]] = []  # the columns that no training changes

    @property
    def possible(self) -> bool:
        """Whether there is something to draw, and a renderer here that draws it."""
        named = self.model.loading.renderer or self.model.loading.decoder
        return len(self.held) > 0 and (self.model.files.renderer is not None or named is not None)

    def draw(self, prior: PriorModel, step: int, *, last: bool, on_note: OnNote | None = None) -> None:
        """Writes validation.png of these weights; last: whatever time it takes."""
        if not self.possible or (not last and self.spent > SHARE * (time.monotonic() - self.begun)):
            return
        since = time.monotonic()
        try:
            save_picture(self._grid(prior, step), self.out / GRID)
        except PopsError as e:  # no reason to lose the run
            if on_note:
                on_note(f"no validation grid: {e}")
        self.spent += time.monotonic() - since

    def _grid(self, prior: PriorModel, step: int) -> Image.Image:
        from pops.figures.grid import grid_figure

        shards = self.held.shards
        batch = shards.batch(self.held.rows)
        renderer = self.model.renderer()
        roles = list(shards.images)
        if not self.fixed:
            self.fixed = [self._pictures(renderer, role, batch.images[role]) for role in roles]
            self.fixed.append(self._pictures(renderer, "", batch.target))
            self.fixed.append(_rendered(renderer, batch.target))
            self.fixed.append(_rendered(renderer, average_of(plain_operands(shards, batch))))
        columns = [*self.fixed]
        guidances = (self.spec.guidance, STRONGER if self.spec.guidance <= 1 else 1.0)
        for guidance in guidances:
            for seed in SEEDS:
                columns.append(_rendered(renderer, self._results(prior, guidance, seed), seed))
        side = max(image.size[0] for image in columns[-1])
        cells = [column[row].convert("RGB").resize((side, side)) for row in range(len(self.held)) for column in columns]
        titles = [*roles, "truth", "truth, rendered", "average"]
        titles += [f"guidance {g:g}, seed {s}" for g in guidances for s in SEEDS]
        return grid_figure(cells, titles, [self._label(row) for row in range(len(self.held))])

    def _label(self, row: int) -> str:
        """Returns a row's words, or its id."""
        example = self.examples[row]
        words = [text for text in example.texts.values() if text] if example else []
        return shown(words[0] if words else self.ids[row], 24)

    def _pictures(self, renderer: Renderer, role: str, vectors: Tensor) -> list[Image.Image]:
        """Returns the pictures of a role, or of the truth (""); where a picture is not known, its embedding's."""
        images = []
        for row, example in enumerate(self.examples):
            path = None if example is None else example.images.get(role) if role else example.target
            if path is not None and path.is_file():
                images.append(load_photo(path, size=renderer.capabilities.native[1]))
            else:
                images += _rendered(renderer, vectors[row : row + 1])
        return images

    def _results(self, prior: PriorModel, guidance: float, seed: int) -> Tensor:
        operator, count = Operator(self.spec, prior), len(self.held)
        plain = TrainConfig(operator="plain", steps=1, batch_size=count)
        batch = make_batch(
            self.held, torch.arange(count), config=plain, stats=prior.stats, gen=torch.Generator()
        )  # fmt: skip
        return operator.sample(batch.condition, generators([seed] * count), guidance=guidance, strength=1)


def _rendered(renderer: Renderer, vectors: Tensor, seed: int = 0) -> list[Image.Image]:
    """Returns an image of each embedding, all with one seed, in the renderer's own size."""
    from pops.render.base import RenderOptions

    images: list[Image.Image] = renderer.render(
        vectors.float().cpu(), [seed] * len(vectors), renderer.capabilities.native, RenderOptions()
    )
    return images
