"""The first ten held-out triplets of each operator, truth above result, unchosen: docs/pictures/held-out.jpg.

    python docs/held_out.py
    python docs/held_out.py --singles FOLDER   # results and truths one by one in mixed order, to be judged blind
    python docs/held_out.py --clothes          # operands, truth and result of the first four triplets of clothes, in
                                               # docs/pictures/clothes.jpg

Seed 0 and everything at the model's and the operators' defaults, as in `pops bench toybox --count 10`; the words of
instruct stand under its column. The singles are FOLDER/01.png and on; FOLDER/answers.json says what each one is.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import pops
from pops.measure.operators import Cases, answer_of, apply, draw_cases
from pops.toybox.draw import draw, to_image
from pops.toybox.pairs import OPERATORS, draw_triplet, triplet
from pops.toybox.world import SceneSpec

OUT = Path(__file__).resolve().parent / "pictures" / "held-out.jpg"
COUNT, LARGE, CELL, GAP, LINE = 10, 512, 160, 4, 20


def pictures(p: pops.Pops, name: str) -> tuple[list[Image.Image], list[Image.Image], list[SceneSpec]]:
    """Returns truths, results and specs of an operator's first held-out triplets."""
    specs = [triplet(name, seed, "test").result for seed in range(COUNT)]
    cases: Cases = draw_cases(p, name, COUNT, 0)
    results = p.render(pops.Embedding(apply(p, cases, 0), p.space.id), seed=list(range(COUNT)))
    return [to_image(draw(spec, LARGE)) for spec in specs], list(results), specs


def sheet(p: pops.Pops) -> Image.Image:
    """Draws two rows an operator, under its name."""
    block = LINE + 2 * (CELL + GAP) + LINE
    out = Image.new("RGB", (COUNT * (CELL + GAP) + GAP, len(OPERATORS) * block + GAP), "white")
    pen = ImageDraw.Draw(out)
    for row, name in enumerate(OPERATORS):
        truths, results, specs = pictures(p, name)
        top = row * block
        pen.text((GAP, top + 3), f"{name}: truth above, result below", fill="#444444", font=ImageFont.load_default(13))
        for column, (truth, result, spec) in enumerate(zip(truths, results, specs, strict=True)):
            x = GAP + column * (CELL + GAP)
            for y, image in ((top + LINE, truth), (top + LINE + CELL + GAP, result)):
                out.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
            if name == "instruct":
                words = answer_of(spec)["adjective"]
                pen.text((x, top + LINE + 2 * (CELL + GAP)), words, fill="#444444", font=ImageFont.load_default(12))
    return out


def dressed(p: pops.Pops, count: int = 4) -> Image.Image:
    """Draws a row for each triplet of clothes: its operands, then the truth and the result."""
    cases = draw_cases(p, "clothes", count, 0)
    results = p.render(pops.Embedding(apply(p, cases, 0), p.space.id), seed=list(range(count)))
    drawn = [draw_triplet(triplet("clothes", seed, "test"), 2 * CELL) for seed in range(count)]
    wide = max(len(operands) for operands, _ in drawn)
    side = CELL + GAP
    out = Image.new("RGB", ((wide + 2) * side + 5 * GAP, LINE + count * side), "white")
    pen, font = ImageDraw.Draw(out), ImageFont.load_default(13)
    truth = wide * side + 5 * GAP
    for x, text in ((0, "operands"), (truth, "truth"), (truth + side, "result")):
        pen.text((x + 2, 3), text, fill="#444444", font=font)
    for row, ((operands, target), result) in enumerate(zip(drawn, results, strict=True)):
        cells = [(k * side, to_image(o)) for k, o in enumerate(operands) if not isinstance(o, str)]
        for x, image in (*cells, (truth, to_image(target)), (truth + side, result)):
            out.paste(image.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, LINE + row * side))
    return out


def singles(p: pops.Pops, folder: Path) -> None:
    """Writes results and truths one by one, in an order that does not tell which is which."""
    found = []
    for name in OPERATORS:
        for kind, images in zip(("truth", "result"), pictures(p, name)[:2], strict=True):
            specs = [triplet(name, seed, "test").result for seed in range(COUNT)]
            found += [(name, kind, image, spec) for image, spec in zip(images, specs, strict=True)]
    random.Random(0).shuffle(found)
    folder.mkdir(parents=True, exist_ok=True)
    answers = {}
    for k, (name, kind, image, spec) in enumerate(found, 1):
        image.resize((LARGE, LARGE), Image.Resampling.BICUBIC).save(folder / f"{k:02d}.png")
        answers[f"{k:02d}"] = {"operator": name, "kind": kind, **answer_of(spec)}
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--singles", type=Path, default=None, metavar="FOLDER")
    parser.add_argument("--clothes", action="store_true")
    parser.add_argument("--model", default="tiny", help="to try another")
    parser.add_argument("-o", "--out", type=Path, default=None)
    args = parser.parse_args()
    p = pops.load(args.model, device="cpu")
    if args.singles is not None:
        singles(p, args.singles)
    elif args.clothes:
        dressed(p).save(args.out or OUT.with_name("clothes.jpg"), quality=80)
    else:
        sheet(p).save(args.out or OUT, quality=80)


if __name__ == "__main__":
    main()
