"""Stage 5: writes the finished model folder, float16 safetensors in the layouts that stock diffusers loads.

python -m recipes.tiny.assemble            # into runs/tiny/model
python -m recipes.tiny.assemble --publish  # and from there into the package
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler, KandinskyV22PriorPipeline, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTextModelWithProjection

from pops.loading.manifest import write_manifest
from pops.models.familiar import FAMILIAR
from pops.toybox.packed import pack
from recipes.tiny import diffusion, settings
from recipes.tiny.clip import MEAN, STD
from recipes.tiny.control import build_control
from recipes.tiny.encode import average_of, tokenizer, towers, vae
from recipes.tiny.operators import OPERATORS, SPACE

VERSION = "8.2"
CLOTHES = "clothes"  # the operator that pops' own commands train
ABOUT = {
    "name": "tiny",
    "version": VERSION,
    "summary": "a small model of the procedural world toybox, trained from nothing",
    "space": SPACE,
    "renderer": "renderer",
    "size": settings.CANVAS,
    "photo_side": settings.SIZE,
    "steps": 8,
    "mix_steps": 20,
    "guidance": 6.0,
    # of eight steps the second to the seventh: guided from the first on, pictures get specks in their corners
    "guidance_interval": [0.2, 0.9],
    # in the first four steps, where colours are decided; later it leaves specks
    "guidance_rescale": 0.7,
    "guidance_rescale_interval": [0, 0.5],
    # at 8 x 8, in the first six steps, where shapes are decided; at 16 x 16 it does little
    "pag_scale": 2.5,
    "pag_layers": ["down_blocks.1", "mid_block", "up_blocks.0"],
    "pag_interval": [0, 0.8],
    "mix_guidance": 3.0,
    "licence": "Apache-2.0",
}


def towers_and_processor(out: Path) -> None:
    clip, words = towers(), tokenizer()
    clip.vision.half().save_pretrained(out / "image_encoder")
    clip.text.half().save_pretrained(out / "text_encoder")
    words.save_pretrained(out / "tokenizer")
    CLIPImageProcessorPil(
        size={"shortest_edge": settings.SIZE},
        crop_size={"height": settings.SIZE, "width": settings.SIZE},
        image_mean=list(MEAN),
        image_std=list(STD),
    ).save_pretrained(out / "image_processor")


def renderer(out: Path) -> None:
    """Writes a StableDiffusionPipeline folder, and the adapter beside it."""
    folder = out / "renderer"
    shutil.rmtree(folder, ignore_errors=True)
    own, adapter = diffusion.split(diffusion.trained().state_dict())
    unet = UNet2DConditionModel(**diffusion.UNET)
    unet.load_state_dict(own)
    words = tokenizer()
    words.model_max_length = settings.PROMPT
    text = CLIPTextModelWithProjection.from_pretrained(out / "text_encoder")
    plain = CLIPTextModel(text.config)
    missing, _ = plain.load_state_dict(
        {k: v for k, v in text.state_dict().items() if k in plain.state_dict()}, strict=False
    )
    if missing:
        inner = {k.removeprefix("text_model."): v for k, v in text.state_dict().items() if k.startswith("text_model.")}
        plain.load_state_dict(inner)
    pipe = StableDiffusionPipeline(
        vae=vae(),
        text_encoder=plain,
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(**diffusion.SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16)
    pipe.save_pretrained(folder)
    (folder / "ip_adapter").mkdir()
    flat = {f"{part}.{k}": v.half().contiguous() for part, rows in adapter.items() for k, v in rows.items()}
    save_file(flat, folder / "ip_adapter" / "ip_adapter.safetensors")


def control(out: Path) -> None:
    """Writes the depth ControlNet beside the renderer's parts, and the estimator of depth from a photo."""
    state = settings.WORK / "control" / "checkpoint.pt"
    if state.exists():
        net = build_control()
        net.load_state_dict(average_of("control"))
        net.half().save_pretrained(out / "renderer" / "controlnets" / "depth")
    here = settings.WORK / "depth_estimator"
    copy(here if here.exists() else settings.PACKAGE / "depth_estimator", out / "depth_estimator")


def finisher(out: Path) -> None:
    """Puts the upscaler beside the renderer's parts, if there is one."""
    made = settings.WORK / "upscaler" / "model"
    if made.exists():
        copy(made, out / "renderer" / "upscaler")


def familiar(out: Path) -> None:
    """Takes what says what tiny was trained on: as it was made here, or the shipped one."""
    made, had = settings.WORK / FAMILIAR / "model", settings.PACKAGE / FAMILIAR
    if made.exists() or had.exists():
        copy(made if made.exists() else had, out / FAMILIAR)


def shipped(out: Path) -> None:
    """Takes the shipped prior and its operators, if no prior was trained here: they know no pixels."""
    if not (out / "prior").exists():
        for part in ("prior", "scheduler", "operators"):
            copy(settings.PACKAGE / part, out / part)


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def widen(out: Path) -> None:
    """Makes transformers load the float16 towers as float32, which is diffusers' default for its own parts."""
    of_transformers = ("text_encoder", "image_encoder", "renderer/text_encoder", "depth_estimator")
    for config in (out / part for part in of_transformers if (out / part).exists()):
        data = json.loads((config / "config.json").read_text())
        (config / "config.json").write_text(json.dumps({**data, "dtype": "float32"}, indent=2) + "\n")


def index(out: Path) -> None:
    """Writes model_index.json, as KandinskyV22PriorPipeline reads it, and pops.json."""
    library = {
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "image_processor": ["transformers", "CLIPImageProcessorPil"],
        "prior": ["diffusers", "PriorTransformer"],
        "scheduler": ["diffusers", "UnCLIPScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    import diffusers

    first = {"_class_name": KandinskyV22PriorPipeline.__name__, "_diffusers_version": diffusers.__version__}
    (out / "model_index.json").write_text(json.dumps({**first, **library}, indent=2) + "\n")
    (out / "pops.json").write_text(json.dumps(ABOUT, indent=2) + "\n")


def size_of(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def publish(out: Path) -> None:
    shutil.rmtree(settings.PACKAGE, ignore_errors=True)
    shutil.copytree(out, settings.PACKAGE, ignore=shutil.ignore_patterns("*-*"))
    for reader in ("oracle", "silhouette"):
        made = settings.WORK / f"{reader}.safetensors"
        if made.exists():
            save_file(pack(load_file(made)), settings.ROOT / "src" / "pops" / "toybox" / f"{reader}.safetensors")
    for name in (*OPERATORS, CLOTHES):
        if not (settings.PACKAGE / "operators" / name / "operator.json").exists():
            how = (
                "see recipes/tiny/clothes.yaml" if name == CLOTHES else f"run `python -m recipes.tiny.operators {name}`"
            )
            raise SystemExit(f"operator {name} is missing in {out}: {how}")
    write_manifest(settings.PACKAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    out = settings.WORK / "model"
    out.mkdir(parents=True, exist_ok=True)
    towers_and_processor(out)
    renderer(out)
    control(out)
    finisher(out)
    familiar(out)
    shipped(out)
    widen(out)
    index(out)
    print(f"{out}: {size_of(out):.1f} MB")
    if args.publish:
        publish(out)
        print(f"{settings.PACKAGE}: {size_of(settings.PACKAGE):.1f} MB")


if __name__ == "__main__":
    main()
