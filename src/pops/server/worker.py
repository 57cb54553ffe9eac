"""The process that makes images with one model: it holds the networks, and runs recipes by the code that everyone runs.

It is told jobs in lines of JSON, tells what comes of them, and knows neither HTTP nor the queue.
"""

from __future__ import annotations

import base64
import io
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import Cancelled, ConfigError, PopsError, UserError
from pops.files import write_whole
from pops.recipe import Loading, Recipe
from pops.server.child import Inbox, Message
from pops.server.references import References

if TYPE_CHECKING:
    from PIL import Image

    from pops.caution import Caution
    from pops.result import Result
    from pops.studio import Pops

PREVIEW = 128  # pixels of the longer side
SILENCE = 1.0  # seconds between two messages of progress that nobody follows: they say that the worker moves
logger = logging.getLogger("pops.server")


class Worker:
    """One process's state."""

    def __init__(self) -> None:
        self._cancelled: set[str] = set()
        self._watched: set[str] = set()
        self._told = 0.0  # when progress was told last
        self._lock = threading.Lock()
        self.inbox = Inbox(self._at_once)

    def _at_once(self, message: Message) -> bool:
        """Takes what may come while a job runs; in the thread that reads."""
        if message.get("do") == "run":
            self._watched = {job["id"] for job in message["jobs"] if job["watched"]}
            self._cancelled &= {job["id"] for job in message["jobs"]}  # others have ended before it was known
            return False
        if message.get("do") == "watch":
            (self._watched.add if message["on"] else self._watched.discard)(message["job"])
            return True
        if message.get("do") != "cancel":
            return False
        self._cancelled.add(message["job"])
        return True

    def main(self) -> None:
        """Loads the model, and does what it is told until the server ends."""
        from pops.studio import Pops

        about = self.inbox.next()
        try:
            loading = Loading(**about["loading"])
            pops = Pops.of(Recipe(expression="_", loading=loading))
            seconds = warm(pops)
        except PopsError as e:
            self.inbox.tell({"refused": str(e)})
            return
        told = {"ready": True, "loading": self.loaded(pops), "version": pops.model.version, "seconds": seconds}
        self.inbox.tell(told)
        while True:
            message = self.inbox.next()
            if message["do"] == "run":
                self.run(pops, message["jobs"])
            elif message["do"] == "health":
                self._answer(message, lambda: {"seconds": warm(pops)})
            elif message["do"] == "search":
                self._answer(message, lambda message=message: {"matches": found(pops, message)})
            elif message["do"] == "renderers":
                self._answer(message, lambda: {"renderers": renderers(pops)})

    def loaded(self, pops: Pops) -> dict[str, Any]:
        """Returns what is loaded, complete: a recipe that asks for it is run."""
        import torch

        own = pops.model.loading.model_copy(
            update={
                "device": pops.model.device,
                "max_batch": pops.model.max_batch,
                "dtype": pops.model.loading.dtype or "float32",
                "precision": pops.model.loading.precision or pops.model.loading.dtype or "float32",
                "threads": torch.get_num_threads(),
            }
        )
        data: dict[str, Any] = own.model_dump(mode="json")
        return data

    def _answer(self, message: Message, work: Any) -> None:
        try:
            self.inbox.tell({"answer": message["ask"], **work()})
        except PopsError as e:
            self.inbox.tell({"answer": message["ask"], "error": str(e), "code": type(e).__name__})

    # --- jobs

    def run(self, pops: Pops, jobs: list[Message]) -> None:
        """Runs jobs: one, or several whose images are computed in one batch."""
        if len(jobs) > 1:
            from pops.server.together import Together

            batch = Together(pops, jobs)
            if batch.possible:
                self._run_together(batch)
                return
        for job in jobs:
            self._run_one(pops, job)

    def _run_one(self, pops: Pops, job: Message) -> None:
        notes: list[str] = []
        references = References(job["photos"], job["libraries"])
        try:
            asked = Recipe.of_data(job["recipe"], "the job")
            for result in self._results(pops, asked, references, job, notes):
                self._warn(job, result.warnings, references)
                for number, image in zip(result.numbers or [0] * len(result), result, strict=True):
                    self._image(job, number, image, references, asked)
                    self._check(job)
            self.inbox.tell({"job": job["id"], "event": "done", "notes": [references.hidden(note) for note in notes]})
        except Cancelled:
            self.inbox.tell({"job": job["id"], "event": "cancelled"})
        except Exception as e:  # whatever a job does, the next one runs
            self.inbox.tell({"job": job["id"], "event": "failed", "error": failure(e, references)})
        finally:
            self._cancelled.discard(job["id"])

    def _results(
        self, pops: Pops, asked: Recipe, references: References, job: Message, notes: list[str]
    ) -> Iterator[Result]:
        """What a job's recipe makes, without the images that stand already."""
        recipe = references.to_paths(asked).trusted()
        how: dict[str, Any] = {
            "on_progress": lambda done, total, what: self._progress([job], done, total, what),
            "on_preview": WhileWatched(
                lambda: job["id"] in self._watched,
                lambda images, done, total: self._preview(job, images, done, total),
            ),
            "on_note": notes.append,
        }
        if recipe.sweep:
            yield pops.run(recipe, **how)
            return
        numbers = recipe.numbers(len(recipe.seeds)) if recipe.shows == "image" else [0]
        left = [number for number in numbers if number not in job["made"]]
        if left:
            only, captions = left if recipe.shows == "image" else None, references.captions(job["names"])
            yield from pops.stream(recipe, only=only, captions=captions, **how)

    def _run_together(self, batch: Any) -> None:
        try:
            for job, number, image in batch.images(lambda *told: self._progress(batch.jobs, *told), self._warn):
                if job["id"] not in self._cancelled:
                    self._image(job, number, image, batch.references[job["id"]], batch.asked[job["id"]])
            ends: dict[str, Message] = {job["id"]: {"event": "done", "notes": batch.notes} for job in batch.jobs}
        except Cancelled:
            ends = {job["id"]: {"event": "cancelled"} for job in batch.jobs}
        except Exception as e:
            ends = {j["id"]: {"event": "failed", "error": failure(e, batch.references[j["id"]])} for j in batch.jobs}
        for job in batch.jobs:
            cancelled = job["id"] in self._cancelled
            self.inbox.tell({"job": job["id"], **({"event": "cancelled"} if cancelled else ends[job["id"]])})
            self._cancelled.discard(job["id"])

    # --- what is told

    def _check(self, *jobs: Message) -> None:
        """Raises where the work is to stop: it is cancelled, or takes too long."""
        if all(job["id"] in self._cancelled for job in jobs):
            raise Cancelled
        for job in jobs:
            if time.monotonic() > job.setdefault("until", time.monotonic() + job["seconds"]):
                raise ConfigError(f"the job took over {job['seconds']:g} seconds; ask for fewer images or steps")

    def _warn(self, job: Message, warnings: Iterable[Caution], references: References) -> None:
        for caution in warnings:
            told = {key: references.hidden(value) for key, value in caution.to_data().items()}
            self.inbox.tell({"job": job["id"], "event": "warning", "data": told})

    def _progress(self, jobs: list[Message], done: int, total: int, what: str) -> None:
        self._check(*jobs)
        if not any(job["id"] in self._watched for job in jobs) and time.monotonic() < self._told + SILENCE:
            return
        self._told = time.monotonic()
        for job in jobs:
            told = {"done": done, "total": total, "what": what}
            self.inbox.tell({"job": job["id"], "event": "progress", "data": told})

    def _preview(self, job: Message, images: list[Image.Image], done: int, total: int) -> None:
        self._check(job)
        shown = [small(image) for image in images]
        data = {"done": done, "total": total, "images": shown}
        self.inbox.tell({"job": job["id"], "event": "preview", "data": data})

    def _image(self, job: Message, number: int, image: Image.Image, references: References, asked: Recipe) -> None:
        from pops.figures.vector import STROKES
        from pops.images import save_picture

        path = Path(job["folder"]) / f"{number}.png"
        save_picture(image, path, references.to_names(image.info["pops"], asked))
        size = path.stat().st_size
        if STROKES in image.info and asked.shows in ("tree", "equation"):
            with write_whole(path.with_suffix(".svg")) as place:
                size += place.write_text(image.info[STROKES].svg(), encoding="utf-8")
        told = {"number": number, "width": image.width, "height": image.height, "bytes": size}
        self.inbox.tell({"job": job["id"], "event": "image", "data": told})


class WhileWatched:
    """A callback for previews that is false while nobody looks: then renderers make none, which costs them a step."""

    def __init__(self, watched: Callable[[], bool], tell: Callable[[list[Image.Image], int, int], None]) -> None:
        self._watched, self._tell = watched, tell

    def __bool__(self) -> bool:
        return self._watched()

    def __call__(self, images: list[Image.Image], done: int, total: int) -> None:
        """Tells of a preview."""
        self._tell(images, done, total)


def warm(pops: Pops) -> float:
    """Makes one embedding and one image, as small as they come; returns the seconds that took."""
    from PIL import Image

    start = time.monotonic()
    made = pops.embed([Image.new("RGB", (64, 64), "gray")])
    for name in list(pops.operators)[:1]:
        made = pops.apply(name, *[made] + [None] * (pops.model.spec(name).arity[0] - 1), steps=1)
    if pops.model.files.renderer is not None:
        able = pops.renderer().capabilities
        pops.render(made, steps=1 if able.steps else None)
    return round(time.monotonic() - start, 3)


def found(pops: Pops, message: Message) -> list[dict[str, Any]]:
    """Returns the photos of a library that are nearest to an expression's embedding."""
    from pops.library import Library

    asked = Recipe.of_data(message["recipe"], "the request")
    recipe = References(message["photos"], message["libraries"]).to_paths(asked)
    library = Library.open(message["library"])
    library.require_encoder(pops.space)
    making, renderer = dict(recipe.making), recipe.loading.renderer
    made = pops.trace(recipe.expression, seed=recipe.seeds[0], renderer=renderer, **making).result
    matches = library.search(made, message["count"])[0]
    return [{"path": match.path, "score": round(match.score, 6)} for match in matches]


def renderers(pops: Pops) -> list[dict[str, Any]]:
    """Returns what each installed renderer can do with the model."""
    from pops.render import names

    rows: list[dict[str, Any]] = []
    for name in names():
        try:
            able = pops.renderer(name).capabilities
            rows.append({"name": name, "ready": True, **{k: getattr(able, k) for k in able.__dataclass_fields__}})
        except (PopsError, OSError):
            rows.append({"name": name, "ready": False})
    return rows


def small(image: Image.Image) -> str:
    """Returns a small copy of an image as a data URL."""
    copy = image.convert("RGB")
    copy.thumbnail((PREVIEW, PREVIEW))
    out = io.BytesIO()
    copy.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def failure(error: Exception, references: References) -> dict[str, Any]:
    """Returns an error as the API tells it."""
    if isinstance(error, UserError):
        return {"code": type(error).__name__, "message": references.hidden(str(error))}
    logger.error("a job failed", exc_info=error)
    if isinstance(error, PopsError):
        return {"code": type(error).__name__, "message": references.hidden(str(error))}
    return {"code": "InternalError", "message": f"a fault of the server ({type(error).__name__}); its log says more"}


if __name__ == "__main__":
    Worker().main()
