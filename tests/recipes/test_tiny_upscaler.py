"""The recipe's upscaler: what an untrained one gives, its files, and pairs that are aligned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from recipes.tiny import settings, upscaler
from recipes.tiny.upscaler import CROP, SCALE, Finishing, Pairs, losses, toward, write
from safetensors.torch import save_file
from torch import Tensor

from pops.diffusion.upscaler import Upscaler


class Shrunken:
    """A renderer that only shrinks; its second way, which is not aligned, shows the colours' opposites."""

    name, ways, aligned = "shrunken", 2, 1

    def spoil(self, truths: Tensor) -> Tensor:
        small = F.avg_pool2d(truths.float(), SCALE).round().to(torch.uint8)
        return torch.stack([small, 255 - small], 1)


def test_untrained_it_enlarges_by_nearest_neighbour() -> None:
    x = torch.rand(2, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(Upscaler()(x), F.interpolate(x, scale_factor=4, mode="nearest"))
    assert sum(p.numel() for p in Upscaler().parameters()) == pytest.approx(0.62e6, rel=0.01)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Upscaler(**upscaler.CONFIG).half().float()
    torch.nn.init.normal_(model.last.weight, std=0.01)
    write(model.half().float(), tmp_path)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(Upscaler.load(tmp_path)(x), model.half().float()(x))


def test_pairs_show_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "WORK", tmp_path)
    settings.data(settings.LARGE).mkdir()
    gen = torch.Generator().manual_seed(0)

    def truths(n: int) -> Tensor:
        coarse = torch.rand(n, 3, 32, 32, generator=gen)
        large = F.interpolate(coarse, size=settings.LARGE, mode="bilinear")
        return (255 * large).round().to(torch.uint8)

    save_file({"images": truths(2)}, settings.data(settings.LARGE) / "train-00000.safetensors")
    pairs = Pairs(Shrunken(), torch.device("cpu"))  # type: ignore[arg-type]
    small, truth, aligned = pairs.crops(5, torch.Generator().manual_seed(1))
    assert aligned.any() and not aligned.all()  # of two ways the first is called so
    assert small.shape == (5, 3, CROP, CROP)
    assert truth.shape == (5, 3, SCALE * CROP, SCALE * CROP)
    off = (F.avg_pool2d(truth, SCALE) - small).abs().amax((1, 2, 3))
    assert ((off < 0.03) == aligned).all()  # softened
    save_file({"images": truths(1)}, settings.data(settings.LARGE) / "train-00001.safetensors")
    pairs.grow()
    assert len(pairs.truths) == len(pairs.inputs) == 3
    assert len(list(settings.data(settings.LARGE).glob("inputs-*"))) == 2


def test_each_network_gets_gradients_from_its_own_terms() -> None:
    nets = Finishing()
    small, truth = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)
    loss, figures = losses(nets, nets.upscaler, small, truth, torch.tensor([True, False]), 0.1, 0.0)
    loss.backward()
    assert any(float(p.grad.abs().sum()) > 0 for p in nets.upscaler.last.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in nets.discriminator.parameters())
    assert set(figures) == {"l1", "coarse", "own", "told"}


def test_where_the_truth_shows_other_places_the_input_is_the_leash() -> None:
    nets = Finishing()  # untrained it enlarges: its averages are the input's
    small, truth = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)
    none, both = torch.tensor([False, False]), torch.tensor([True, True])
    _, figures = losses(nets, nets.upscaler, small, truth, none, 0.1, 0.0)
    assert float(figures["own"]) == pytest.approx(0, abs=1e-6) and float(figures["l1"]) == 0
    _, figures = losses(nets, nets.upscaler, small, truth, both, 0.1, 0.0)
    assert float(figures["l1"]) > 0.1 and float(figures["own"]) == 0


def test_weights_are_taken_a_share_of_the_way(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        model = Upscaler(**upscaler.CONFIG)
        for p in model.parameters():
            torch.nn.init.constant_(p, value)
        write(model, tmp_path / name)
    mixed = toward(tmp_path / "a", tmp_path / "b", 0.25)
    assert all(bool((p == 1.25).all()) for p in mixed.parameters())
    assert all(bool((p == 1).all()) for p in Upscaler.load(tmp_path / "a").parameters())
