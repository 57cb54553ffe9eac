"""Model: what is loaded, its parts each read once on first use: space, prior, operators, renderers, MagicMix.

Knows no expression and no request.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pops.errors import ConfigError, OperandError, ensure, suggest
from pops.files import expanded
from pops.magicmix.spec import MIX, MixSpec
from pops.models.hub import HUB, fetched, hub_renderer, renderer_at, resolve
from pops.operators.spec import BUILTIN, OperatorSpec
from pops.recipe import Loading

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from pops.magicmix.mix import MagicMix
    from pops.operators.operator import Operator, TextPrior
    from pops.prior.linear import Precision
    from pops.prior.transformer import PriorModel
    from pops.render.base import Renderer
    from pops.render.controls import ControlMaker
    from pops.space import Space

PHOTO_SIDE = 512  # pixels; a photo is squashed to this square before CLIP's own preprocessing, as the papers did
MAX_BATCH = 8  # images rendered together, unless given
# What decides the model itself; the rest of Loading may differ from one recipe to the next.
OF_THE_MODEL = (
    "model", "decoder", "operators", "adapter", "controlnets", "device", "dtype", "precision", "offload", "max_batch"
)  # fmt: skip


class Model:
    """A model by name, folder or hub id, and what was loaded beside it. Threads may share it.

    Raises ModelError for an unknown or absent model, CheckpointError for an operator that is not there.
    """

    def __init__(self, loading: Loading) -> None:
        from pops.operators.official import spec_at

        self.loading = loading if loading.model is not None else loading.model_copy(update={"model": "tiny"})
        self.files = resolve(str(self.loading.model), decoder=loading.decoder)
        self.name = self.files.name
        self.version = str(self.files.info.get("version", "0"))
        self.max_batch = loading.max_batch or MAX_BATCH
        official = {name: path for name, path in self.files.info.get("official", {}).items() if name in BUILTIN}
        given = {name: expanded(path) for name, path in loading.operators.items()}
        for name, path in given.items():
            spec_at(name, path)  # a mistake is told now, and not at the first use
        self._folders: dict[str, Path] = {**official, **self.files.operators, **given}
        self._operators: dict[str, Operator] = {}
        self._renderers: dict[tuple[Any, ...], Renderer] = {}
        self._mixers: dict[int, MagicMix] = {}
        self._lock = threading.RLock()

    def fits(self, asked: Loading) -> bool:
        """Whether what is asked for is what is loaded. A recipe that names its model stands for just what it lists; of
        one that names none only what it gives counts.
        """
        named = asked.model is not None
        for field in OF_THE_MODEL:
            wanted, here = getattr(asked, field), getattr(self.loading, field)
            given = wanted is not None and wanted != {}
            if given and field == "device":
                here = self.device
            if given and field == "max_batch":
                here = self.max_batch
            optional = field in ("device", "offload", "max_batch") or not named
            if (given or not optional) and wanted != here:
                return False
        return True

    # --- the parts, each on first use

    @cached_property
    def operators(self) -> Mapping[str, OperatorSpec]:
        """The specs of this model's operators by name, the built-in ones first; reads no weights."""
        from pops.operators.official import spec_at

        order = [*(n for n in BUILTIN if n in self._folders), *sorted(set(self._folders) - set(BUILTIN))]
        return {name: spec_at(name, self._folders[name]) for name in order}

    @property
    def calls(self) -> Mapping[str, OperatorSpec | MixSpec]:
        """What an expression may call: the operators, and mix."""
        return {**self.operators, MIX.name: MIX}

    def spec(self, name: str) -> OperatorSpec:
        """One operator's spec; OperandError for an unknown name."""
        if name not in self.operators:
            known = ", ".join(self.operators) or "none"
            pull = f"; run: pops operators pull {name}" if self.name in HUB and name in BUILTIN else ""
            hint = suggest(name, self.operators)
            raise OperandError(f"{self.name} has no operator {name!r}{hint}; choose from {known}{pull}")
        return self.operators[name]

    @cached_property
    def device(self) -> str:
        """Where the networks run: cpu, cuda or mps."""
        import torch

        asked = self.loading.device or "auto"
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        if asked == "auto":
            return "cuda" if cuda else "mps" if mps else "cpu"
        kind = asked.partition(":")[0]
        ensure(kind in ("cpu", "cuda", "mps"), f"device is auto, cpu, cuda or mps, got {asked!r}", ConfigError)
        there = kind == "cpu" or (kind == "cuda" and cuda) or (kind == "mps" and mps)
        told = f"this machine has no {kind} device for torch {torch.__version__}; use --device cpu"
        ensure(there, told, ConfigError)
        return asked

    @cached_property
    def dtype(self) -> torch.dtype:
        """The type of the networks' weights; embeddings are always float32."""
        import torch

        asked = self.loading.dtype or "float32"
        ensure(
            asked in ("float32", "float16", "bfloat16"),
            f"dtype is float32, float16 or bfloat16, got {asked!r}",
            ConfigError,
        )
        return cast("torch.dtype", getattr(torch, asked))

    @cached_property
    def precision(self) -> Precision:
        """The precision of the prior's engine."""
        from pops.prior.linear import check_precision

        precision = self.loading.precision or str(self.dtype).removeprefix("torch.")
        check_precision(precision, self.device.partition(":")[0])
        return cast("Precision", precision)

    @cached_property
    def space(self) -> Space:
        """The CLIP space; each of its towers is read on first use."""
        from pops.space import Space

        with self._lock:
            return Space.load(self.files.folder, device=self.device, dtype=self.dtype, parts=self.files.parts)

    @cached_property
    def prior(self) -> PriorModel:
        """The base prior."""
        from pops.prior.transformer import PriorModel

        with self._lock:
            prior, scheduler = self.files.part("prior"), self.files.part("scheduler")
            assert prior is not None  # a model without one is refused when it is resolved
            return PriorModel.load_parts(prior, scheduler, device=self.device, precision=self.precision)

    @cached_property
    def text_prior(self) -> TextPrior:
        """The base prior as it computes text("...")."""
        from pops.operators.operator import TextPrior

        return TextPrior(self.prior)

    def operator(self, name: str) -> Operator:
        """An operator with its weights; OperandError for an unknown name."""
        from pops.operators.official import operator_at

        spec = self.spec(name)
        with self._lock:
            if name not in self._operators:
                self._operators[name] = operator_at(self._folders[name], spec, self.prior, space=self.space.id)
            return self._operators[name]

    def renderer(self, name: str | None = None, *, library: str | Path | None = None) -> Renderer:
        """A renderer by its backend's name, its folder or hub id; None for the model's own, or retrieval where there is
        a library of photos. ConfigError if the model has none.
        """
        from pops.render import RendererOptions, get

        library = library or self.loading.library
        asked = name or self.loading.renderer or ("retrieval" if library else None)
        backend, folder, own = self._which_renderer(asked)
        adapter, offload = self.loading.adapter, bool(self.loading.offload)
        with self._lock:
            key = (backend, folder and folder.resolve(), library if backend == "retrieval" else None)
            if key not in self._renderers:
                options = RendererOptions(
                    self.space.id,
                    self.device,
                    self.dtype,
                    defaults=self.files.info if own else {},
                    max_batch=self.max_batch,
                    offload=offload and self.device != "cpu",
                    adapter=None if adapter is None else expanded(adapter),
                    controlnets={k: fetched(where, "ControlNet") for k, where in self.loading.controlnets.items()},
                    extra={"zero_image": self.space.zero_image_embedding, "library": library, "encoder": self.space},
                )
                self._renderers[key] = get(backend)(folder, options)
            return self._renderers[key]

    def _which_renderer(self, asked: str | None) -> tuple[str, Path | None, bool]:
        """The backend, the folder it reads, and whether that is the model's own, which the model's settings are for."""
        from pops.render import backend_of, names

        folder, own = self.files.renderer, self.loading.decoder is None
        if asked is None:
            folder = folder or hub_renderer(self.name)
            told = f"{self.name} has no renderer; name one (--renderer), or save the embedding instead"
            ensure(folder is not None, told, ConfigError)
            assert folder is not None
            return backend_of(folder), folder, own
        if asked not in names() and ("/" in asked or expanded(asked).is_dir()):
            given = renderer_at(asked)
            return backend_of(given), given, own and folder is not None and given.resolve() == folder.resolve()
        return asked, folder, own

    @cached_property
    def control_maker(self) -> ControlMaker:
        """Makes control images of photos, with the model's own depth estimator, or the hub's."""
        from pops.render.controls import ESTIMATOR, ControlMaker

        own = self.files.folder / "depth_estimator"
        return ControlMaker(own if own.is_dir() else ESTIMATOR, device=self.device)

    def mixer(self, renderer: str | None = None) -> MagicMix:
        """MagicMix with a renderer's networks, which are not read again; ConfigError if they cannot mix."""
        from pops.magicmix.mix import MagicMix

        backend: Any = self.renderer(renderer)
        networks = getattr(backend, "networks", None)
        told = f"mixing needs a Stable Diffusion renderer, {backend.name} is none; use another (--renderer)"
        ensure(networks is not None, told, ConfigError)
        with self._lock:
            if id(backend) not in self._mixers:
                how = {"space": backend.space, "max_batch": self.max_batch, "running": backend.running}
                self._mixers[id(backend)] = MagicMix(**vars(networks), **how)
            return self._mixers[id(backend)]

    # --- what the parts do together

    @property
    def photo_side(self) -> int:
        """Pixels of the square that a photo becomes before CLIP's own preprocessing."""
        return int(self.files.info.get("photo_side", PHOTO_SIDE))

    def encode_photos(self, photos: Sequence[str | Path | Image.Image], fit: str) -> Tensor:
        """Embeds photos in one batch: un-normalised [n, D], float32. All are opened before the tower is read."""
        from pops.images import load_photo

        return self.space.encode_images([load_photo(photo, fit=fit, size=self.photo_side) for photo in photos])
