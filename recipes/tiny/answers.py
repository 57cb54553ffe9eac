"""Between stages: the finished operators' results on their training triplets, for the renderer to learn from.

    python -m recipes.tiny.answers

An operator's answer is near the true result's embedding, not equal to it; a renderer that is trained on such answers
with their true images renders them better (docs/log.md). Writes answers.safetensors: the answers at two guidance
scales, and the row of each one's true image among the latents; the companies' images, for unions alone, come after all
others, and then those of settings.MORE. The operators are those trained here, or the shipped ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pops.operators.checkpoint import load_operator
from pops.operators.official import operator_at, spec_at
from pops.operators.operator import Operator
from pops.prior.transformer import PriorModel
from pops.seeds import generators
from recipes.tiny import data, operators, settings
from recipes.tiny.encode import latents, text_states, tokenizer, towers, vae
from recipes.tiny.operators import OPERATORS, SPACE, Embedded
from recipes.tiny.render import more

GUIDANCES = (1.0, 2.0)
# Of the answers in a batch. "more": pictures of settings.MORE, by their own embeddings, which are no operator's answers
# but drawn like them.
SHARES = {"texturing": 0.34, "union": 0.18, "scene": 0.16, "instruct": 0.18, "clothes": 0.07, "more": 0.07}


class Rows(Embedded):
    """The same lookups, with rows among the latents instead of embeddings."""

    def __init__(self, folder: Path = settings.WORK) -> None:
        e = load_file(folder / "embeds.safetensors")
        count = len(e["embeds"])
        self.arrange(torch.arange(count)[:, None], count + torch.arange(len(e["company"]))[:, None], e)


def jobs(name: str, embedded: Embedded, rows: Rows) -> tuple[list[list[Tensor]], Tensor]:
    """Returns the operands of every training triplet of an operator, and the rows of the true results."""
    if name != "instruct":
        take = getattr(operators, name)
        return [list(pair) for pair in take(embedded)[0]], take(rows)[1][:, 0]
    operands, _, words, _ = operators.instruct(embedded)
    clip, words_to_ids = towers(), tokenizer()
    states = {w: text_states(clip, words_to_ids([w], return_tensors="pt")["input_ids"])[1][0] for w in set(words)}
    return [[e[0], states[w]] for e, w in zip(operands, words, strict=True)], operators.instruct(rows)[1][:, 0]


def dressings(pictures: Tensor, seeds: int) -> tuple[list[list[Tensor]], list[int]]:
    """Returns the operands of every example of clothes among settings.MORE, and the row of its result.

    pictures: embeddings of what `more` draws for so many seeds, in a row.
    """
    operands, results, at = [], [], 0
    for seed in range(seeds):
        count = len(more(seed))
        if settings.MORE[seed % len(settings.MORE)] == "clothes":
            operands.append(list(pictures[at : at + count - 1]))
            results.append(at + count - 1)
        at += count
    return operands, results


@torch.no_grad()
def answer(operator: Operator, triplets: list[list[Tensor]]) -> Tensor:
    """Applies an operator in one step => float16 [n, guidances, D]."""
    out = torch.empty(len(triplets), len(GUIDANCES), settings.DIM, dtype=torch.float16)
    if not triplets:
        return out
    length = torch.tensor([sum(o.numel() // settings.DIM for o in t) for t in triplets])
    for n in length.unique():
        for part in (length == n).nonzero()[:, 0].split(256):
            condition = operator.encode([triplets[int(k)] for k in part])
            for g, guidance in enumerate(GUIDANCES):
                gens = generators(part.tolist())
                out[part, g] = operator.sample(condition, gens, steps=1, guidance=guidance, strength=1).half().cpu()
    return out


def near(answers: Tensor, truth: Tensor) -> list[float]:
    """Mean cosines of answers [n, guidances, D] to the truth [n, D]."""
    cosines = torch.cosine_similarity(answers.float(), truth[:, None], -1).mean(0) if len(truth) else torch.zeros(0)
    return [round(float(c), 3) for c in cosines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=25000, help="triplets per operator, drawn at random")
    parser.add_argument("--encoded", type=Path, default=settings.WORK, help="the folder that encode wrote")
    parser.add_argument("--vae", type=Path, default=None, help="a folder of the autoencoder to use")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    home = settings.home_of_prior()
    base = PriorModel.load(home, device=args.device)
    embedded, rows = Embedded(args.encoded), Rows(args.encoded)
    of, which, embeds = [], [], []
    for k, name in enumerate(OPERATORS):
        triplets, true = jobs(name, embedded, rows)
        some = torch.randperm(len(triplets), generator=torch.Generator().manual_seed(k))[: args.most]
        folder = home / "operators" / name
        operator = operator_at(folder, spec_at(name, folder), base, space=SPACE)
        embeds.append(answer(operator, [triplets[int(i)] for i in some]))
        of.append(true[some])
        which.append(torch.full((len(some),), k))
        truth = torch.cat([embedded.e, embedded.company])[true[some]]
        print(name, len(some), "of", len(triplets), "answers; cosine", near(embeds[-1], truth), flush=True)

    # What pairs do not show: dressed figures as the operator clothes answers, and everything by its own embedding.
    rows_before = len(embedded.e) + len(embedded.company)
    drawn = load_file(args.encoded / "embeds.safetensors")
    pictures, seeds = drawn.get("more", torch.zeros(0, settings.DIM)).float(), int(drawn.get("mores", 0))
    worn, results = dressings(pictures, seeds)
    clothes = load_operator(home / "operators" / "clothes", base, space=SPACE)
    for k, made, true in (
        (len(OPERATORS), answer(clothes, worn), torch.tensor(results, dtype=torch.long)),
        (len(OPERATORS) + 1, pictures.half()[:, None].expand(-1, len(GUIDANCES), -1), torch.arange(len(pictures))),
    ):
        embeds.append(made)
        of.append(rows_before + true)
        which.append(torch.full((len(true),), k))
        print(list(SHARES)[k], len(true), "answers; cosine", near(made, pictures[true]), flush=True)

    coder = vae(args.vae).to(args.device)
    none = torch.zeros(0, settings.LATENT, *[settings.CANVAS // 8] * 2).half()
    images = {name: data.load_others(split)[0] for name, split in (("company", "union"), ("more", "more"))}
    made = {
        "of": torch.cat(of),
        "operator": torch.cat(which),
        "embeds": torch.cat(embeds),
        **{name: latents(coder, some) if len(some) else none for name, some in images.items()},
    }
    partial = args.encoded / "answers.partial"
    save_file(made, partial)
    partial.replace(args.encoded / "answers.safetensors")


if __name__ == "__main__":
    main()
