"""What the images of an evaluation's results show: rendered, embedded again, and scored like the results themselves.

Beside the results, their average and the truth's own embedding there is IP-Adapter with all the pictures: the renderer
is given the operands' embeddings together, as it takes several images, and a word as its prompt. It needs no operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pops.errors import ConfigError
from pops.measure.figures import cosines, hits
from pops.measure.operators import finished, rendered
from pops.training.validation import error_of

if TYPE_CHECKING:
    from PIL import Image

    from pops.measure.examples import Encoded, Evaluation
    from pops.progress import OnProgress
    from pops.studio import Pops

ADAPTER = "IP-Adapter"


def draw(
    p: Pops, done: Evaluation, count: int, seed: int, on_progress: OnProgress | None = None
) -> dict[str, Sequence[Image.Image]]:
    """Returns images of the first `count` examples by what they show, and adds their figures to the evaluation, as
    `rendered`; without a renderer a note, and nothing else.
    """
    encoded, result = done.encoded, done.result
    assert encoded is not None and result is not None
    images: dict[str, Sequence[Image.Image]] = {}
    try:
        for what, vectors in (("result", result), ("average", encoded.average), ("truth, rendered", encoded.truth)):
            images[what] = rendered(p, vectors[:count], seed, None, f"rendering {what}", on_progress)
        if p.renderer().capabilities.several and any(kind == "image" for _, kind in encoded.columns):
            images[ADAPTER] = with_all_pictures(p, encoded, count, seed, on_progress)
    except ConfigError as e:
        done.notes.append(f"no images of results: {e}")
        return images
    keys = {"truth, rendered": "truth", ADAPTER: "ip_adapter"}
    done.figures["rendered"] = {
        "count": count, **{keys.get(what, what): _figures(p, drawn, encoded) for what, drawn in images.items()}
    }  # fmt: skip
    return images


def with_all_pictures(
    p: Pops, encoded: Encoded, count: int, seed: int, on_progress: OnProgress | None = None
) -> list[Image.Image]:
    """Returns what the renderer makes of each example's pictures together, image i with seed + i.

    Examples with as many pictures and the same words are rendered together; one without any picture is made of zeros.
    """
    import torch

    from pops.render.base import RenderOptions

    of_image = [k for k, (_, kind) in enumerate(encoded.columns) if kind == "image"]
    groups: dict[tuple[int, str], list[int]] = {}
    for i, example in enumerate(encoded.examples[:count]):
        words = " ".join(text for text in example.texts.values() if text)
        groups.setdefault((int(encoded.there[i, of_image].sum()), words), []).append(i)
    backend = p.renderer()
    images: dict[int, Image.Image] = {}
    for (number, words), rows in groups.items():
        some = [encoded.plain[i, of_image][encoded.there[i, of_image]] for i in rows]
        vectors = torch.stack(some) if number else encoded.plain.new_zeros(len(rows), 1, encoded.plain.shape[-1])
        made = backend.render(
            vectors, [seed + i for i in rows], backend.capabilities.native, RenderOptions(prompt=words)
        )  # fmt: skip
        images |= dict(zip(rows, finished(p, made), strict=True))
        if on_progress:
            on_progress(len(images), count, f"rendering {ADAPTER}")
    return [images[i] for i in range(count)]


def _figures(p: Pops, images: Sequence[Image.Image], encoded: Encoded) -> dict[str, float]:
    """Returns cosine and recall@1 of images, embedded again, to the truths, with standard errors."""
    again = p.embed(list(images)).vectors
    each = {
        "cosine": cosines(again, encoded.truth[: len(again)]),
        "recall_at_1": hits(again, encoded.truth).float(),
    }
    errors = {f"{name}_error": error_of(name, value) for name, value in each.items()}
    return {**{name: float(value.mean()) for name, value in each.items()}, **errors}
