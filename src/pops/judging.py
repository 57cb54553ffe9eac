"""Judging: the cautions of a plan's operands: photos and texts that the model was trained on nothing like.

Results of operators and mixes are not judged, nor are embeddings, which have no pixels left to look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pops.caution import Caution
from pops.expression.nodes import Given, Node, Photo, Text
from pops.files import shown
from pops.images import load_photo
from pops.models.hub import HUB

if TYPE_CHECKING:
    from PIL import Image

    from pops.expression.plan import Plan
    from pops.models.model import Model
    from pops.progress import OnNote

NAMED = 3  # operands or words of each kind that a line names


def judged(
    model: Model,
    plan: Plan,
    images: Mapping[Node, Any],
    squares: Mapping[Node, Image.Image],
    fit: str,
    on_note: OnNote | None = None,
) -> dict[Node, Caution]:
    """Returns the cautions of the operands by node, photos first, and tells of all of them in one line.

    images: the photos and images among the operands, paths or PIL images; squares: those of them that were read as
    squares of the model's side already; fit: how the others become square. {} for a model that does not say what it was
    trained on. Raises PhotoError for a photo that cannot be read.
    """
    familiar = model.familiar
    if familiar is None:
        return {}
    found: dict[Node, Caution] = {}
    seen = [squares.get(n) or load_photo(image, fit=fit, size=model.photo_side) for n, image in images.items()]
    for (node, image), flagged in zip(images.items(), familiar.unfamiliar(seen), strict=True):
        if flagged:
            name = shown(_name(node, image))
            found[node] = Caution(name, _line(model.name, familiar.about, [name], []))
    for node, text in _texts(plan).items():
        if words := familiar.unknown(text):
            found[node] = Caution(shown(text), _line(model.name, familiar.about, [], words), words=words)
    if found and on_note:
        photos = dict.fromkeys(caution.operand for caution in found.values() if not caution.words)
        words = tuple(dict.fromkeys(word for caution in found.values() for word in caution.words))
        on_note(_line(model.name, familiar.about, list(photos), words))
    return found


def _texts(plan: Plan) -> dict[Node, str]:
    """Returns the texts of a plan by node: words of operators and mixes, prompts of text(...)."""
    texts: dict[Node, str] = {word: word.text for word in plan.words}
    return texts | {job.node: job.node.prompt for job in plan.jobs if isinstance(job.node, Text)}


def _name(node: Node, image: Any) -> str:
    """Returns what a user calls a photo: its path, a PIL image's file, or else the image's key."""
    if isinstance(node, Photo):
        return node.path
    own = getattr(image, "filename", "")
    return str(own or (f"the image ${node.key}" if isinstance(node, Given) else image))


def _line(model: str, about: str, photos: Sequence[str], words: Sequence[str]) -> str:
    told = []
    if photos:
        look = "looks" if len(photos) == 1 else "look"
        told.append(f"{_listed(photos)} {look} unlike all that {model} was trained on ({about})")
    if words:
        quoted = _listed([f"'{shown(word)}'" for word in words])
        who, why = ("it", "") if photos else (model, f" (it was trained on {about})")
        told.append(f"{who} does not know the word{'s' * (len(words) > 1)} {quoted}{why}")
    what = "photographs and free text" if photos and words else "photographs" if photos else "free text"
    other = next(iter(HUB))
    shows = "resemble" if photos else "show"
    return (
        f"{', and '.join(told)}; the result will not {shows} {'them' if len(photos) + len(words) > 1 else 'it'}. "
        f"For {what} use a model trained on {'them' if photos else 'it'}: --model {other} (see pops models list)"
    )


def _listed(names: Sequence[str]) -> str:
    """Returns a, b, c and 2 more."""
    if len(names) <= NAMED:
        return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
