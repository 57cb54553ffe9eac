"""Model: the loaded networks (CLIP space, prior, operators, renderers, MagicMix), each read once, on first use.

Knows no expressions and no recipes but their Loading part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pops.errors import ConfigError, ModelError, OperandError, ensure, suggest
from pops.files import expanded, read_json_object
from pops.loading.lock import LOADING, once
from pops.loading.manifest import Verification, check_sizes, has_manifest
from pops.loading.parts import DIFFUSERS, check_files, weights_of
from pops.magicmix.spec import MIX, MixSpec
from pops.models.hub import HUB, fetched, hub_renderer, renderer_at, resolve
from pops.operators.spec import BUILTIN, OperatorSpec
from pops.recipe import Loading

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from pops.diffusion.upscaler import Upscaler
    from pops.magicmix.mix import MagicMix
    from pops.models.familiar import Familiar
    from pops.operators.operator import Operator, TextPrior
    from pops.prior.linear import Precision
    from pops.prior.transformer import PriorModel
    from pops.render.base import Renderer
    from pops.render.controls import ControlMaker
    from pops.space import Space

PHOTO_SIDE = 512  # pixels; a photo is squashed to this square before CLIP's own preprocessing, as the papers did
MAX_BATCH = 8  # images rendered together, unless given


class Model:
    """The networks of one model and what is loaded beside them. Threads may share it.

    Raises ModelError for an unknown or absent model, CheckpointError for an operator that does not exist.
    """

    def __init__(self, loading: Loading) -> None:
        from pops.operators.official import spec_at

        self.loading = loading if loading.model is not None else loading.model_copy(update={"model": "tiny"})
        self.files = resolve(str(self.loading.model), decoder=loading.decoder)
        self.name = self.files.name
        self.version = str(self.files.info.get("version", "0"))
        self.max_batch = loading.max_batch or MAX_BATCH
        official = {name: path for name, path in self.files.info.get("official", {}).items() if name in BUILTIN}
        given = {name: _operator_folder(path) for name, path in loading.operators.items()}
        for name, path in given.items():
            spec_at(name, path)  # raises now for a bad path, not at the first use
        self._folders: dict[str, Path] = {**official, **self.files.operators, **given}
        self._operators: dict[str, Operator] = {}
        self._renderers: dict[tuple[Any, ...], Renderer] = {}
        self._mixers: dict[int, MagicMix] = {}
        self._folders_of_renderers: dict[int, Path | None] = {}  # by the renderer's identity
        self._upscalers: dict[Path, Upscaler] = {}
        self._verification = Verification(self._with_manifests())

    def _with_manifests(self) -> list[Path]:
        """Returns the folders of this model that have a manifest, their files' sizes checked."""
        folders, renderer = list(self.files.verified), self.files.renderer
        home = None if renderer is None else renderer.parent  # of a decoder that is another model's
        if home is not None and home not in folders and has_manifest(home):
            check_sizes(home)
            folders.append(home)
        return folders

    def fits(self, asked: Loading) -> bool:
        """Returns whether this model can run a recipe that asks for `asked`.

        If `asked` names a model, None means "none" and every field must match; otherwise only the given fields must.
        device, offload and max_batch count only if they are given.
        """
        named = asked.model is not None
        own = self.loading
        for field in ("model", "decoder", "operators", "adapter", "controlnets"):
            wanted = getattr(asked, field)
            if (named or wanted not in (None, {})) and wanted != getattr(own, field):
                return False
        dtype = own.dtype or "float32"
        if (named or asked.dtype) and (asked.dtype or "float32") != dtype:
            return False
        if (named or asked.precision) and (asked.precision or asked.dtype or dtype) != (own.precision or dtype):
            return False
        if asked.device not in (None, "auto") and asked.device != self.device:
            return False
        if asked.offload is not None and asked.offload != bool(own.offload):
            return False
        return asked.max_batch in (None, self.max_batch)

    # --- the parts, each read on first use

    @once
    def operators(self) -> Mapping[str, OperatorSpec]:
        """The specs of this model's operators by name, the built-in ones first; reads no weights."""
        from pops.operators.official import spec_at

        order = [*(n for n in BUILTIN if n in self._folders), *sorted(set(self._folders) - set(BUILTIN))]
        return {name: spec_at(name, self._folders[name]) for name in order}

    @property
    def operator_folders(self) -> Mapping[str, Path]:
        """Where each operator of this model lies, by name: a pops folder or an official checkpoint."""
        return dict(self._folders)

    @property
    def calls(self) -> Mapping[str, OperatorSpec | MixSpec]:
        """The specs of all that an expression may call: the operators and mix."""
        return {**self.operators, MIX.name: MIX}

    def spec(self, name: str) -> OperatorSpec:
        """Returns an operator's spec; raises OperandError for an unknown name."""
        if name not in self.operators:
            known = ", ".join(self.operators) or "none"
            pull = f"; run: pops operators pull {name}" if self.name in HUB and name in BUILTIN else ""
            hint = suggest(name, self.operators)
            raise OperandError(f"{self.name} has no operator {name!r}{hint}; choose from {known}{pull}")
        return self.operators[name]

    @once
    def device(self) -> str:
        """Where the networks run: cpu, cuda or mps."""
        return device_for(self.loading.device or "auto")

    @once
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

    @once
    def precision(self) -> Precision:
        """The precision of the prior's engine."""
        from pops.prior.linear import check_precision

        precision = self.loading.precision or str(self.dtype).removeprefix("torch.")
        check_precision(precision, self.device.partition(":")[0])
        return cast("Precision", precision)

    @once
    def space(self) -> Space:
        """The CLIP space; reads each of its towers on first use."""
        from pops.space import Space

        self._verification.wait()
        return Space.load(self.files.folder, device=self.device, dtype=self.dtype, parts=self.files.parts)

    @once
    def prior(self) -> PriorModel:
        """The base prior."""
        from pops.prior.noise import SCHEDULER_FILE
        from pops.prior.transformer import PriorModel

        self._verification.wait()
        prior, scheduler = self.files.part("prior"), self.files.part("scheduler")
        assert prior is not None  # a model without one is refused when it is resolved
        if scheduler is not None:
            check_files(scheduler, SCHEDULER_FILE)
        check_files(prior, "config.json")
        variant, files = weights_of(prior, DIFFUSERS)
        if variant is not None:
            return self._prior_of(prior, files, scheduler)
        return PriorModel.load_parts(prior, scheduler, device=self.device, precision=self.precision)

    # PriorModel.load_parts knows weights by one name alone.
    def _prior_of(self, folder: Path, files: Sequence[Path], scheduler: Path | None) -> PriorModel:
        """Loads a prior whose weights are a variant's files."""
        from pops.prior.config import PriorConfig
        from pops.prior.noise import SchedulerConfig
        from pops.prior.tensors import TensorFiles
        from pops.prior.transformer import PriorModel
        from pops.weights import check_shapes

        settings, tensors = read_json_object(folder / "config.json", ModelError), TensorFiles(*files)
        wanted = PriorConfig.of(settings, str(folder)).shapes
        told = f"the weights in {folder} do not fit"
        check_shapes(wanted, tensors.shapes, told, ignored=("causal_attention_mask",))
        noise = None if scheduler is None else SchedulerConfig.load(scheduler)
        return PriorModel(
            scheduler=noise, tensors=tensors, settings=settings, precision=self.precision, device=self.device
        )

    @once
    def text_prior(self) -> TextPrior:
        """The base prior as used for text("...")."""
        from pops.operators.operator import TextPrior

        return TextPrior(self.prior)

    def operator(self, name: str) -> Operator:
        """Returns an operator with its weights; raises OperandError for an unknown name."""
        from pops.operators.official import operator_at

        spec = self.spec(name)
        if name in self._operators:  # without waiting for others that load
            return self._operators[name]
        with LOADING:
            if name not in self._operators:
                self._operators[name] = operator_at(self._folders[name], spec, self.prior, space=self.space.id)
            return self._operators[name]

    def renderer(self, name: str | None = None, *, library: str | Path | None = None, own: bool = False) -> Renderer:
        """Returns a renderer by its backend's name, folder or hub id.

        None stands for the one that was loaded, else for retrieval if there is a library, else for the model's own.
        Raises ConfigError if the model has none.
        """
        from pops.render import RendererOptions, get

        if not own:
            library, name = library or self.loading.library, name or self.loading.renderer
        asked = name or ("retrieval" if library else None)
        told = f"a library of photos is for --renderer retrieval, not for {asked}"
        ensure(library is None or asked == "retrieval" or library == self.loading.library, told, ConfigError)
        backend, folder, own = self._which_renderer(asked)
        adapter, offload = self.loading.adapter, bool(self.loading.offload)
        key = (backend, folder and folder.resolve(), library if backend == "retrieval" else None)
        if key in self._renderers:
            return self._renderers[key]
        with LOADING:
            self._verification.wait()
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
                self._renderers[key] = made = get(backend)(folder, options)
                self._folders_of_renderers[id(made)] = folder
            return self._renderers[key]

    def upscaler(self, renderer: Renderer) -> Upscaler | None:
        """Returns the upscaler in the folder of a renderer that `renderer` gave; None where it has none. Read once.

        One whose images have a size of their own (retrieval) has none: photos stay as they are.
        """
        folder = self._folders_of_renderers.get(id(renderer))
        if folder is None or not min(renderer.capabilities.native) or not (folder / "upscaler").is_dir():
            return None
        with LOADING:
            self._verification.wait()
            if folder not in self._upscalers:
                from pops.diffusion.upscaler import Upscaler

                slow = self.device == "cpu" and self.loading.dtype == "float16"
                dtype = None if slow else self.dtype  # float16 takes a CPU fifty times as long as float32
                self._upscalers[folder] = Upscaler.load(folder / "upscaler", self.device, dtype)
            return self._upscalers[folder]

    def _which_renderer(self, asked: str | None) -> tuple[str, Path | None, bool]:
        """Returns the backend, its folder, and whether it is the model's own, to which the model's settings apply."""
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

    @once
    def control_maker(self) -> ControlMaker:
        """The maker of control images, with the model's own depth estimator or else the hub's."""
        from pops.render.controls import ESTIMATOR, ControlMaker

        self._verification.wait()
        own = self.files.folder / "depth_estimator"
        return ControlMaker(own if own.is_dir() else ESTIMATOR, device=self.device)

    @once
    def familiar(self) -> Familiar | None:
        """What the model was trained on, where its folder says so; None of most models."""
        from pops.models.familiar import FAMILIAR, Familiar

        self._verification.wait()
        folder = self.files.folder / FAMILIAR
        return Familiar.load(folder) if folder.is_dir() else None

    def mixer(self, renderer: str | None = None, *, own: bool = False) -> MagicMix:
        """Returns MagicMix on a renderer's networks, which are shared; raises ConfigError if they cannot mix."""
        from pops.magicmix.mix import MagicMix

        backend: Any = self.renderer(renderer, own=own)
        networks = getattr(backend, "networks", None)
        told = f"mixing needs a Stable Diffusion renderer, {backend.name} is none; use another (--renderer)"
        ensure(networks is not None, told, ConfigError)
        with LOADING:
            if id(backend) not in self._mixers:
                how: dict[str, Any] = {"space": backend.space, "max_batch": self.max_batch, "running": backend.running}
                how["upscaler"] = self.upscaler(backend)
                self._mixers[id(backend)] = MagicMix(**vars(networks), **how)
            return self._mixers[id(backend)]

    # --- what several parts do together

    @property
    def photo_side(self) -> int:
        """The side in pixels of the square that a photo becomes before CLIP's own preprocessing."""
        return int(self.files.info.get("photo_side", PHOTO_SIDE))

    def encode_photos(self, photos: Sequence[str | Path | Image.Image], fit: str) -> Tensor:
        """Returns the embeddings of photos, computed as one batch: un-normalised [n, D], float32.

        Every photo is opened before the image tower is read, so that a bad path fails early.
        """
        return self.space.encode_images(self.squares(photos, fit))

    def squares(self, photos: Sequence[str | Path | Image.Image], fit: str) -> list[Image.Image]:
        """Reads photos as the squares that the image tower takes; see pops.images.load_photo."""
        from pops.images import load_photo

        return [load_photo(photo, fit=fit, size=self.photo_side) for photo in photos]


def _operator_folder(source: str) -> Path:
    """Returns where an operator lies, given its folder or file, or its repo on the hub: user/repo, user/repo@v2."""
    from pops.operators.sharing import is_repo, located

    repo, _, revision = source.partition("@")
    if is_repo(repo) and not expanded(source).exists():
        return located(repo, revision=revision or None)
    return expanded(source)


def device_for(asked: str) -> str:
    """Where networks run: auto is the best of this machine's devices; raises ConfigError for one that it lacks."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    kind = asked.partition(":")[0]
    ensure(kind in ("cpu", "cuda", "mps"), f"device is auto, cpu, cuda or mps, got {asked!r}", ConfigError)
    there = kind == "cpu" or (kind == "cuda" and cuda) or (kind == "mps" and mps)
    ensure(there, f"this machine has no {kind} device for torch {torch.__version__}; use --device cpu", ConfigError)
    return asked
