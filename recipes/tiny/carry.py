"""Takes a stage's weights from one machine to another, in files small enough for a lent one.

    python -m recipes.tiny.carry pack diffusion autoencoder --out runs/tiny/carried
    python -m recipes.tiny.carry collect runs/tiny/carried

`pack` writes the averaged weights in float16, split by tensors into safetensors files of at most LIMIT bytes, and what
there is to see: grid.jpg, and log.txt with the figures. `collect` makes the stages' checkpoints of them again: enough
to assemble or probe the model, and to go on training with a new optimiser. A checkpoint in the way is kept beside.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from recipes.tiny import settings

LIMIT = 15 * 2**20  # bytes of a file; a lent machine gives back 8 files of 16 MiB


def pack(stage: str, out: Path, limit: int = LIMIT) -> list[Path]:
    """Writes a stage's averaged weights and pictures to a folder; returns the files."""
    folder = settings.WORK / stage
    state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    parts: list[dict[str, Tensor]] = [{}]
    room = limit - 100_000  # for the header
    for key, value in state["average"].items():
        value = (value.half() if value.is_floating_point() else value).contiguous()
        if parts[-1] and value.nbytes > room:
            parts, room = [*parts, {}], limit - 100_000
        parts[-1][key] = value
        room -= value.nbytes
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{stage}-part-*.safetensors"):
        old.unlink()
    written = []
    for k, tensors in enumerate(parts):
        about = {"step": str(state["step"]), "seconds": str(state["seconds"]), "parts": str(len(parts))}
        written.append(out / f"{stage}-part-{k}.safetensors")
        save_file(tensors, written[-1], about)
    if (folder / "grid.png").exists():
        written.append(out / f"{stage}-grid.jpg")
        Image.open(folder / "grid.png").convert("RGB").save(written[-1], quality=92)
    said = [(folder / name).read_text() for name in ("held_out.txt", "log.jsonl") if (folder / name).exists()]
    written.append(out / f"{stage}-log.txt")
    written[-1].write_text("\n".join(said)[-1_000_000:])
    return written


def collect(folder: Path, anew: bool = False) -> list[str]:
    """Makes checkpoints of all stages packed in a folder; returns their names.

    anew: the steps and seconds of these are not counted: a stage then starts from the weights, with a whole budget.
    """
    stages = sorted({p.name.split("-part-")[0] for p in folder.glob("*-part-*.safetensors")})
    for stage in stages:
        paths = sorted(folder.glob(f"{stage}-part-*.safetensors"), key=lambda p: int(p.stem.split("-")[-1]))
        average: dict[str, Tensor] = {}
        for path in paths:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                average |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if len(paths) != int(about["parts"]):
            raise SystemExit(f"{folder}: {stage} has {len(paths)} of {about['parts']} parts")
        average = {k: v.float() if v.is_floating_point() else v for k, v in average.items()}
        state = {
            "module": average,
            "average": average,
            "step": 0 if anew else int(about["step"]),
            "seconds": 0.0 if anew else float(about["seconds"]),
        }
        target = settings.WORK / stage / "checkpoint.pt"
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.replace(target.with_name("checkpoint.before.pt"))
        torch.save(state, target)
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    packing = ways.add_parser("pack")
    packing.add_argument("stages", nargs="+")
    packing.add_argument("--out", type=Path, default=settings.WORK / "carried")
    collecting = ways.add_parser("collect")
    collecting.add_argument("folder", type=Path)
    collecting.add_argument("--anew", action="store_true", help="count their steps and seconds as none")
    args = parser.parse_args()
    if args.way == "collect":
        print("collected", ", ".join(collect(args.folder, args.anew)) or "nothing", flush=True)
        return
    for stage in args.stages:
        for path in pack(stage, args.out):
            print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB", flush=True)


if __name__ == "__main__":
    main()
