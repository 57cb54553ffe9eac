"""Folders of the wild: guidance that is an input, further pipeline classes, schedulers that cannot work here, noise."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folders import DIM, draw, write_renderer, write_sdxl
from pops.diffusion.scheduler import read_scheduler, scheduler_of_call
from pops.errors import ConfigError, ModelError
from pops.magicmix.mix import MagicMix
from pops.render import RendererOptions, backend_of, get


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_renderer(tmp_path_factory.mktemp("foreign") / "sd")


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def distilled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A renderer whose UNet reads guidance as an embedding, as those of latent consistency models do."""
    from diffusers import UNet2DConditionModel

    kind = write_renderer if request.param == "sd" else write_sdxl
    here: Path = kind(tmp_path_factory.mktemp("distilled") / request.param)
    old = UNet2DConditionModel.from_pretrained(here / "unet")
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config({**old.config, "time_cond_proj_dim": 33})
    unet.load_state_dict(old.state_dict(), strict=False)
    with torch.no_grad():
        unet.time_embedding.cond_proj.weight.normal_()
    shutil.rmtree(here / "unet")
    unet.save_pretrained(here / "unet")
    edit(here / "scheduler" / "scheduler_config.json", _class_name="LCMScheduler")
    edit(here / "model_index.json", scheduler=["diffusers", "LCMScheduler"])
    return here


@pytest.mark.parametrize("guidance", [0.5, 2.0, 14.0])
def test_guidance_that_is_an_input_equals_stock(distilled: Path, guidance: float) -> None:
    from diffusers import DiffusionPipeline
    from transformers import CLIPImageProcessorPil

    backend = backend_of(distilled)
    ours = get(backend)(distilled, RendererOptions("random-32", defaults={"size": 32, "steps": 3}))
    pipe = DiffusionPipeline.from_pretrained(distilled)
    pipe.register_modules(feature_extractor=CLIPImageProcessorPil())
    weights: dict[str, Any] = {"subfolder": "ip_adapter", "weight_name": "ip_adapter.safetensors"}
    pipe.load_ip_adapter(str(distilled), image_encoder_folder=None, **weights)
    pipe.set_progress_bar_config(disable=True)
    e = torch.randn(1, DIM, generator=torch.Generator().manual_seed(0))
    expected = pipe(
        prompt="red tiger", ip_adapter_image_embeds=[e[None]], num_inference_steps=3, guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7), height=32, width=32,
    ).images  # fmt: skip
    told: list[str] = []
    how: dict[str, Any] = {"seeds": [7], "steps": 3, "prompt": "red tiger", "size": (32, 32), "on_note": told.append}
    got = draw(ours, e, guidance=guidance, negative="red", **how)
    assert np.array_equal(np.asarray(got[0]), np.asarray(expected[0])) and np.asarray(got[0]).std() > 5
    assert told == ["this UNet has guidance built in: the negative text has no effect"]
    other = draw(ours, e, guidance=guidance + 3, **how)
    assert not np.array_equal(np.asarray(got[0]), np.asarray(other[0]))
    two = draw(ours, e.repeat(2, 1), guidance=guidance, **{**how, "seeds": [7, 8]})
    assert np.abs(np.asarray(two[0]).astype(int) - np.asarray(got[0])).max() <= 1


def test_more_steps_than_a_scheduler_has_are_one_line(distilled: Path) -> None:
    ours = get(backend_of(distilled))(distilled, RendererOptions("random-32"))
    with pytest.raises(ConfigError, match="LCMScheduler cannot make 51 steps .*; ask for another number") as told:
        draw(ours, torch.zeros(1, DIM), seeds=[0], steps=51, size=(32, 32))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionPAGPipeline", "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
    ],
)  # fmt: skip
def test_pipelines_over_the_same_parts(folder: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit(copy / "model_index.json", _class_name=name)
    assert backend_of(copy) == "stable-diffusion"
    assert MagicMix.load(copy, device="cpu").native == (32, 32)
    (copy / "text_encoder_2").mkdir()
    assert backend_of(copy) == "sdxl"


@pytest.mark.parametrize("name", ["StableDiffusion3Pipeline", "FluxPipeline", "StableCascadePipeline", "None"])
def test_other_pipelines_are_unknown(folder: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit(copy / "model_index.json", _class_name=name)
    with pytest.raises(ModelError, match=f"unknown pipeline '{name}'"):
        backend_of(copy)


def test_an_inpainting_unet_is_refused_before_it_is_read(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit(copy / "unet" / "config.json", in_channels=9)
    next((copy / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"reads 9 channels, the autoencoder gives 4 \(is it for inpainting\?\)"):
        get("stable-diffusion")(copy, RendererOptions("x"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("FlowMatchEulerDiscreteScheduler", "init_noise_sigma"),
        ("FlowMatchHeunDiscreteScheduler", "cannot sample here"),
        ("FlowMatchLCMScheduler", "cannot sample here"),
        ("RePaintScheduler", "cannot sample here"),
        ("VQDiffusionScheduler", "cannot sample here"),
        ("DDIMInverseScheduler", "from images to noise"),
    ],
)
def test_schedulers_that_cannot_sample_here(folder: Path, tmp_path: Path, name: str, says: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ModelError, match=rf"the scheduler {name} of .*scheduler_config\.json.*; name another") as told:
        read_scheduler(copy)
    assert says in str(told.value) and "\n" not in str(told.value) and len(str(told.value)) < 500


@pytest.mark.parametrize(
    ("name", "package"), [("LMSDiscreteScheduler", "scipy"), ("DPMSolverSDEScheduler", "torchsde")]
)
def test_schedulers_whose_package_is_absent(folder: Path, tmp_path: Path, name: str, package: str) -> None:
    import diffusers
    from diffusers.utils import is_scipy_available, is_torchsde_available

    if is_scipy_available() if package == "scipy" else is_torchsde_available():
        pytest.skip(f"{package} is installed")
    assert getattr(diffusers, name)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit(copy / "scheduler" / "scheduler_config.json", _class_name=name)
    with pytest.raises(ModelError, match=f"it needs {package}: pip install {package}"):
        read_scheduler(copy)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own
@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "PNDMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
     "HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
     "DEISMultistepScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "TCDScheduler", "IPNDMScheduler",
     "SASolverScheduler", "DDIMParallelScheduler"],
)  # fmt: skip
def test_schedulers_that_can(folder: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit(copy / "scheduler" / "scheduler_config.json", _class_name=name)
    assert type(read_scheduler(copy)).__name__ == name


def test_nothing_is_written_while_networks_are_read_and_run(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.utils import logging as of_diffusers

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    shutil.rmtree(copy / "unet")
    unet.save_pretrained(copy / "unet", max_shard_size="60KB")
    for config in ("unet/config.json", "vae/config.json", "text_encoder/config.json"):
        edit(copy / config, of_another_program=True)
    edit(copy / "scheduler" / "scheduler_config.json", of_another_program=True)
    assert (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").exists()
    capfd.readouterr()
    level, bars = of_diffusers.get_verbosity(), of_diffusers.is_progress_bar_enabled()
    of_diffusers.set_verbosity(logging.WARNING)
    try:
        renderer = get("stable-diffusion")(copy, RendererOptions("random-32", defaults={"size": 32}))
        draw(renderer, torch.zeros(1, DIM), seeds=[0], steps=2)
    finally:
        of_diffusers.set_verbosity(level)
    assert capfd.readouterr() == ("", "")
    assert of_diffusers.is_progress_bar_enabled() == bars


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own
@pytest.mark.parametrize(
    ("name", "last"),
    [("DDIMScheduler", 999), ("DDPMScheduler", 999), ("EulerDiscreteScheduler", 1000), ("PNDMScheduler", 999)],
)
def test_as_many_steps_as_timesteps_run_or_are_refused(name: str, last: int) -> None:
    """With steps_offset 1 some classes begin after the last timestep that they know."""
    import diffusers

    own = getattr(diffusers, name).from_config({"steps_offset": 1, "timestep_spacing": "leading"})
    scheduler = scheduler_of_call(own, last, "cpu")
    scheduler.step(torch.zeros(1, 4, 8, 8), scheduler.timesteps[0], torch.zeros(1, 4, 8, 8))
    if last < 1000:
        with pytest.raises(ConfigError, match=f"{name} cannot make 1000 steps.*ask for 999 or fewer"):
            scheduler_of_call(own, 1000, "cpu")
