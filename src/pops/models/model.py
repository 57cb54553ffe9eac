"""The parts of a loaded model: device, space, prior, operators, renderers, MagicMix; each is read once, on first use.

Knows no expression and no request.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pops.errors import ConfigError, OperandError, ensure, suggest
from pops.files import expanded
from pops.operators.spec import BUILTIN, OperatorSpec

if TYPE_CHECKING:
    import torch

    from pops.magicmix.mix import MagicMix
    from pops.models.hub import ModelFiles
    from pops.operators.operator import Operator, TextPrior
    from pops.prior.linear import Precision
    from pops.prior.transformer import PriorModel
    from pops.render.base import Renderer
    from pops.render.controls import ControlMaker
    from pops.space import Space


class Parts:
    """What a model is made of. Threads may share it; what one of them reads, all have."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        operators: Mapping[str, str | Path] | None = None,
        renderer: str | None = None,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        precision: str | None = None,
        max_batch: int = 8,
    ) -> None:
        from pops.operators.stored import spec_at

        self.files, self.name = files, files.name
        self.source = files.name  # what loads this model again: its name, or the folder as it was given
        self.version = str(files.info.get("version", "0"))
        self.max_batch = max_batch
        self.library: str | Path | None = None  # of photos, for the renderer "retrieval"
        self._device, self._dtype, self._backend, self._precision = device, dtype, renderer, precision
        official = {name: path for name, path in files.info.get("official", {}).items() if name in BUILTIN}
        given = {name: expanded(path) for name, path in (operators or {}).items()}
        for name, path in given.items():
            spec_at(name, path)  # a mistake is told now, and not at the first use
        self._folders: dict[str, Path] = {**official, **files.operators, **given}
        # With source, what loads this model again.
        self.extra: dict[str, Any] = {"operators": {n: str(p) for n, p in given.items()}} if given else {}
        self.extra |= {} if precision is None else {"precision": precision}
        self._operators: dict[str, Operator] = {}
        self._renderers: dict[tuple[Any, ...], Renderer] = {}
        self._mixers: dict[int, MagicMix] = {}
        self._adapter: Path | None = None
        self._controlnets: dict[str, str | Path] = {}
        self._offload = False
        self._lock = threading.RLock()

    def equip(
        self,
        *,
        adapter: str | Path | None = None,
        controlnets: Mapping[str, str | Path] | None = None,
        offload: bool = False,
    ) -> None:
        """What renderers are read with from now on; see pops.load."""
        self._adapter = None if adapter is None else expanded(adapter)
        self._controlnets, self._offload = dict(controlnets or {}), offload
        told = {"adapter": adapter and str(adapter), "controlnets": {k: str(v) for k, v in self._controlnets.items()}}
        self.extra |= {name: value for name, value in told.items() if value}

    # --- the parts, each on first use
    # ------------------------------------------------------------------------

    @cached_property
    def operators(self) -> Mapping[str, OperatorSpec]:
        """The specs of this model's operators by name, the built-in ones first; reads no weights."""
        from pops.operators.stored import spec_at

        order = [*(n for n in BUILTIN if n in self._folders), *sorted(set(self._folders) - set(BUILTIN))]
        return {name: spec_at(name, self._folders[name]) for name in order}

    def spec(self, name: str) -> OperatorSpec:
        """One operator's spec; OperandError for an unknown name."""
        from pops.models.hub import HUB

        if name not in self.operators:
            known = ", ".join(self.operators) or "none"
            pull = f"; run: pops operators pull {name}" if self.name in HUB and name in BUILTIN else ""
            hint = suggest(name, self.operators)
            raise OperandError(f"{self.name} has no operator {name!r}{hint}; it has: {known}{pull}")
        return self.operators[name]

    @cached_property
    def device(self) -> str:
        """Where the networks run."""
        import torch

        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        if self._device == "auto":
            return "cuda" if cuda else "mps" if mps else "cpu"
        kind = self._device.partition(":")[0]
        ensure(
            kind in ("cpu", "cuda", "mps"),
            f"device is auto, cpu, cuda or mps, got {self._device!r}",
            ConfigError,
        )
        there = kind == "cpu" or (kind == "cuda" and cuda) or (kind == "mps" and mps)
        ensure(
            there,
            f"this machine has no {kind} device for torch {torch.__version__}; use --device cpu",
            ConfigError,
        )
        return self._device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of the networks' weights; embeddings are float32 always."""
        import torch

        dtype = getattr(torch, self._dtype, None) if isinstance(self._dtype, str) else self._dtype or torch.float32
        allowed = (torch.float32, torch.float16, torch.bfloat16)
        ensure(dtype in allowed, f"dtype is float32, float16 or bfloat16, got {self._dtype!r}", ConfigError)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @cached_property
    def precision(self) -> Precision:
        """Of the prior's engine."""
        from pops.prior.linear import check_precision

        precision = str(self.dtype).removeprefix("torch.") if self._precision is None else self._precision
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
        from pops.models.hub import laid_out
        from pops.prior.transformer import PriorModel

        with self._lock:
            folder = laid_out(self.files, ("prior", "scheduler"))
            return PriorModel.load(folder, device=self.device, precision=self.precision)

    @cached_property
    def text_prior(self) -> TextPrior:
        """The base prior as it computes text("...")."""
        from pops.operators.operator import TextPrior

        return TextPrior(self.prior)

    def operator(self, name: str) -> Operator:
        """An operator with its weights."""
        from pops.operators.stored import operator_at

        spec = self.spec(name)
        with self._lock:
            if name not in self._operators:
                self._operators[name] = operator_at(self._folders[name], spec, self.prior, space=self.space.id)
            return self._operators[name]

    def renderer(self, name: str | None = None, *, library: str | Path | None = None) -> Renderer:
        """A renderer by its backend's name, its folder or hub id, None for the model's own (with a library:
        retrieval); read once. ConfigError if the model has none."""
        from pops.models.hub import fetched
        from pops.render.base import RendererOptions, get

        library = library or self.library
        backend, folder, own = self._which_renderer(name or self._backend or ("retrieval" if library else None))
        with self._lock:
            key = (backend, folder and folder.resolve(), library if backend == "retrieval" else None)
            if key not in self._renderers:
                options = RendererOptions(
                    self.space.id,
                    self.device,
                    self.dtype,
                    defaults=self.files.info if own else {},
                    max_batch=self.max_batch,
                    offload=self._offload and self.device != "cpu",
                    adapter=self._adapter,
                    controlnets={kind: fetched(where, "ControlNet") for kind, where in self._controlnets.items()},
                    extra={"zero_image": self.space.zero_image_embedding, "library": library, "encoder": self.space},
                )
                self._renderers[key] = get(backend)(folder, options)
            return self._renderers[key]

    def _which_renderer(self, asked: str | None) -> tuple[str, Path | None, bool]:
        """The backend, the folder it reads, and whether that is the model's own, which the model's settings are for."""
        from pops.models.hub import hub_renderer, renderer_at
        from pops.render.base import backend_of, names

        folder, own = self.files.renderer, "decoder" not in self.extra
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
        """Photos -> control pictures, with the model's own depth estimator, or the hub's."""
        from pops.render.controls import ESTIMATOR, ControlMaker

        own = self.files.folder / "depth_estimator"
        return ControlMaker(own if own.is_dir() else ESTIMATOR, device=self.device)

    def mixer(self, renderer: str | None = None) -> MagicMix:
        """MagicMix with a renderer's networks, shared and not read again; ConfigError if they cannot mix."""
        from pops.magicmix.mix import MagicMix

        backend: Any = self.renderer(renderer)
        networks = getattr(backend, "networks", None)
        ensure(
            networks is not None,
            f"mixing needs a Stable Diffusion renderer, {backend.name} is none; use another (--renderer)",
            ConfigError,
        )
        with self._lock:
            if id(backend) not in self._mixers:
                how = {"space": backend.space, "max_batch": self.max_batch, "running": backend.running}
                self._mixers[id(backend)] = MagicMix(**vars(networks), **how)
            return self._mixers[id(backend)]
