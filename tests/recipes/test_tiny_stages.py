"""What all stages of the recipe share: budgets, resumption, data, and the list of stages."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from recipes.tiny import autoencoder, data, render, settings
from recipes.tiny.__main__ import stages
from recipes.tiny.loop import Budget, Stage, compiled, flat_then_decay
from safetensors.torch import load_file
from torch import Tensor, nn

from pops.images import load_photo


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "WORK", tmp_path)
    monkeypatch.setattr(settings, "FAMILIES_A_SHARD", 2)
    return tmp_path


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def weight_of(stage: Stage) -> Tensor:
    weight = stage.module.weight
    assert isinstance(weight, Tensor)
    return weight


def loss_of(stage: Stage) -> tuple[Tensor, dict[str, Tensor | float]]:
    loss = (stage.module(torch.randn(8, 4, generator=stage.generator())) - 1).square().mean()
    return loss, {"twice": 2 * loss.detach(), "one": 1.0}


def test_a_budget_counts_steps_or_the_clock() -> None:
    assert Budget(steps=10).share(5, 999.0) == 0.5
    assert Budget(minutes=2).share(5, 60.0) == 0.5
    assert Budget(minutes=2).share(5, 600.0) == 1.0


def test_the_schedule_warms_up_stays_and_ends_near_nothing() -> None:
    assert flat_then_decay(0.0, 0) == pytest.approx(1 / 200)
    assert flat_then_decay(0.5, 1000) == 1.0
    assert flat_then_decay(1.0, 1000) == pytest.approx(0.01)


def test_a_run_of_minutes_ends_in_time_and_annealed() -> None:
    stage = Stage("timed", line(), Budget(minutes=0.02), 1e-2)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        time.sleep(0.005)
        return loss_of(stage)

    begun = time.time()
    stage.run(step_loss, log_every=10)
    assert 1.0 < time.time() - begun < 5.0
    assert stage.share == 1.0
    assert stage.optimizer.param_groups[0]["lr"] < 0.05 * 1e-2


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped() -> None:
    whole = Stage("whole", line(), Budget(6), 1e-2)
    whole.run(lambda _: loss_of(whole))
    first = Stage("parts", line(), Budget(6), 1e-2, save_seconds=-1.0)

    def stopped(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        if step == 3:
            raise KeyboardInterrupt
        return loss_of(first)

    with pytest.raises(KeyboardInterrupt):
        first.run(stopped)
    second = Stage("parts", line(), Budget(6), 1e-2)
    assert second.step == 3
    assert second.seconds > 0
    second.run(lambda _: loss_of(second))
    assert torch.equal(weight_of(second), weight_of(whole))
    assert torch.equal(second.average.values["weight"], whole.average.values["weight"])


def test_a_step_without_finite_gradients_is_left_out() -> None:
    stage = Stage("finite", line(), Budget(3), 1e-2)
    before = weight_of(stage).detach().clone()
    stage.run(lambda _: (loss_of(stage)[0] * float("inf"), {}))
    assert torch.equal(weight_of(stage), before)


def test_figures_are_logged_as_means(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage("logged", line(), Budget(4), 0.0)
    stage.run(lambda _: loss_of(stage), log_every=2)
    assert '"one": 1.0' in capsys.readouterr().out
    assert len((stage.folder / "log.jsonl").read_text().splitlines()) == 2


def test_nothing_is_compiled_on_a_cpu() -> None:
    assert compiled(len, torch.device("cpu")) is len


def test_the_deeper_autoencoder_begins_as_the_shallower_one() -> None:
    torch.manual_seed(1)
    blocks = {"num_encoder_blocks": (0, 0, 2, 3), "num_decoder_blocks": (3, 3, 1, 0)}
    old, new = AutoencoderTiny(**{**autoencoder.CONFIG, **blocks}), autoencoder.build()
    autoencoder.carry(old, new)
    x = 2 * torch.rand(1, 3, 32, 32) - 1
    with torch.no_grad():
        a, b = (m.decode(m.encode(x).latents).sample for m in (old, new))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_crops_are_parts_of_the_pictures_or_of_their_mirror_images() -> None:
    images = torch.randint(256, (3, 3, 80, 80), dtype=torch.uint8)
    x = autoencoder.crops(images, 6, torch.Generator().manual_seed(0))
    assert x.shape == (6, 3, autoencoder.CROP, autoencoder.CROP)
    both = torch.cat([images, images.flip(3)])
    windows = data.to_unit(both).unfold(2, autoencoder.CROP, 1).unfold(3, autoencoder.CROP, 1)
    for crop in x:
        assert bool((windows == crop[None, :, None, None]).all(1).flatten(-2).all(-1).any())


def test_pictures_are_shrunk_as_pops_shrinks_photos() -> None:
    image = torch.randint(256, (1, 3, 128, 128), dtype=torch.uint8)
    photo = load_photo(Image.fromarray(image[0].permute(1, 2, 0).numpy()), size=settings.SIZE)
    small = Image.fromarray(data.shrink(image)[0].permute(1, 2, 0).numpy())
    assert small.tobytes() == photo.tobytes()
    assert data.shrink(data.shrink(image)).shape[-1] == settings.SIZE


def test_bytes_and_units_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.to_bytes(data.to_unit(every)), every)


def test_rendering_goes_on_where_it_stopped_and_reads_in_order(work: Path) -> None:
    settings.data(16).mkdir()
    todo = render.interleaved([render.jobs(s, n, 16, 2, "cpu") for s, n in (("train", 3), ("union", 1))])
    assert [(j.split, len(j.seeds)) for j in todo] == [("train", 2), ("union", 1), ("train", 1)]
    counts = [job.work() for job in todo]
    assert counts[0] == 2 * counts[2] == 18
    assert not render.jobs("train", 3, 16, 2, "cpu")
    again = render.jobs("train", 4, 16, 2, "cpu")  # the last shard is too short for these
    assert [j.path.name for j in again] == ["train-00001.safetensors"]
    pictures = data.load(size=16)
    assert (pictures.families, pictures.grids, pictures.changes) == (3, 0, 0)
    assert len(pictures) == len(pictures.labels) == 27
    companies, count = data.load_others("union", 16)
    assert (len(companies), count) == (counts[1], 1)
    growing = data.Growing(16, torch.device("cpu"), ("train",))
    assert len(growing.images) == 27
    todo[0].path.replace(settings.data(16) / "train-00002.safetensors")
    growing.grow()
    assert len(growing.images) == 27  # with a gap before it, a shard is not one of these
    assert load_file(settings.data(16) / "train-00002.safetensors")["guides"].shape[-1] == settings.THUMB


def test_the_list_of_stages_names_modules_that_are_there() -> None:
    modules = [row[0] for row in stages(1.0, 1)]
    assert "upscaler" in modules
    assert all(importlib.util.find_spec(f"recipes.tiny.{m}") for m in modules)


def test_a_run_until_a_time_of_the_clock_counts_what_came_before() -> None:
    assert Budget(steps=3).begun(5.0) == Budget(steps=3)
    assert Budget(until=time.time() + 60).begun(120.0).minutes == pytest.approx(3.0, abs=0.01)
    late = Stage("late", line(), Budget(until=time.time() - 5), 1e-2)
    late.run(lambda _: loss_of(late))
    assert late.step == 1  # its time is over, so it stops as soon as it can
