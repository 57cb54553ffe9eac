"""Pops: what a user holds. It resolves operands, has plans executed, and renders; it has no maths of its own.

Nothing heavy is loaded before it is needed: towers, prior, each operator and each renderer come on first use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pops import __version__
from pops.errors import ConfigError, OperandError, ensure, suggest
from pops.evaluation import (
    Evaluation,
    OnProgress,
    Operand,
    Seed,
    Settings,
    Trace,
    inputs_of,
    node_of,
    seed_list,
)
from pops.expression.grammar import parse, to_text
from pops.expression.nodes import Call, Node, Photo
from pops.expression.plan import Plan, plan
from pops.files import expanded
from pops.operators.spec import BUILTIN, OperatorSpec

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from pops.embedding import Embedding
    from pops.expression import Expression
    from pops.magicmix.mix import MagicMix
    from pops.models.registry import ModelFiles
    from pops.operators.operator import Operator, TextPrior
    from pops.prior.linear import Precision
    from pops.prior.transformer import PriorModel
    from pops.render.base import OnPreview, Renderer
    from pops.space import Space


PHOTO_SIDE = 512  # pixels; a photo is squashed to this square before CLIP's own preprocessing, as the papers did


def load(
    model: str | Path = "tiny",
    *,
    decoder: str | Path | None = None,
    operators: Mapping[str, str | Path] | None = None,
    renderer: str | None = None,
    device: str = "auto",
    dtype: torch.dtype | str | None = None,
    precision: str | None = None,
    max_batch: int = 8,
) -> Pops:
    """A model by name ("tiny", "kandinsky-2-2"), folder or hub id; weights are read on first use.

    decoder: a folder or hub id to render with, where it is not the model's own; operators: more of them, or
    others, name -> operator folder, or official checkpoint (learned_prior.pth) of that operator; renderer: a
    backend's name, None for the model's own; device: "auto", "cpu", "cuda", "mps"; dtype: of the weights,
    None for float32; precision: of the prior alone, dtype's or "int8" (on a CPU: a quarter of the memory, a few
    times as fast, about 2 % off); max_batch: pictures rendered together.
    Raises ModelError for an unknown or absent model, CheckpointError for an operator that is not there.
    """
    from pops.models.registry import resolve

    pops = Pops(
        resolve(model, decoder=decoder),
        operators=operators,
        renderer=renderer,
        device=device,
        dtype=dtype,
        precision=precision,
        max_batch=max_batch,
    )
    pops.source = str(model)
    if decoder is not None:
        pops.extra["decoder"] = str(decoder)
    return pops


class Pops:
    """A loaded model: space, prior, operators, renderers, each read on first use. Threads may share it."""

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
        self._renderers: dict[str, Renderer] = {}
        self._mixers: dict[str, MagicMix] = {}
        self._lock = threading.RLock()

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
        from pops.models.registry import HUB

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
        from pops.models.registry import laid_out
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

    def renderer(self, name: str | None = None) -> Renderer:
        """A renderer by its backend's name, None for the model's own; ConfigError if the model has none."""
        from pops.models.registry import hub_renderer
        from pops.render.base import RendererOptions, backend_of, get

        folder, name = self.files.renderer, name or self._backend
        if folder is None and name is None:
            folder = hub_renderer(self.name)
        name = name or (backend_of(folder) if folder else None)
        if name is None:
            raise ConfigError(f"{self.name} has no renderer; name one (--renderer), or save the embedding instead")
        with self._lock:
            if name not in self._renderers:
                options = RendererOptions(
                    self.space.id, self.device, self.dtype, defaults=self.files.info, max_batch=self.max_batch
                )
                self._renderers[name] = get(name)(folder, options)
            return self._renderers[name]

    def mixer(self, renderer: str | None = None) -> MagicMix:
        """MagicMix with a renderer's networks, shared and not read again; ConfigError if they cannot mix."""
        from pops.magicmix.mix import MagicMix

        backend: Any = self.renderer(renderer)
        parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
        ensure(
            all(hasattr(backend, part) for part in parts),
            f"mixing needs a Stable Diffusion renderer, {backend.name} is none; use another (--renderer)",
            ConfigError,
        )
        with self._lock:
            if backend.name not in self._mixers:
                shared = {part: getattr(backend, part) for part in parts}
                self._mixers[backend.name] = MagicMix(**shared, space=backend.space, max_batch=self.max_batch)
            return self._mixers[backend.name]

    # --- embeddings
    # ------------------------------------------------------------------------------------------

    def embed(self, photos: str | Path | Image.Image | Sequence[Any], *, fit: str = "squash") -> Embedding:
        """Photos (paths or PIL images, one or a list) -> their embeddings, a row each."""
        listed: list[Any] = list(photos) if isinstance(photos, (list, tuple)) else [photos]
        vectors = self.encode_photos(listed, fit)
        return self._embedding(vectors, {"fit": fit})

    def apply(
        self, name: str, *operands: Operand, seed: Seed = 0, on_progress: OnProgress | None = None, **how: Any
    ) -> Embedding:
        """One operator on its operands: paths, PIL images, Embeddings, expressions, words; None is a missing
        one.

        how: steps, guidance, sampler, fit (see Settings). A list of seeds gives a row each. OperandError
        where the operands do not fit the operator's roles.
        """
        spec = self.spec(name)
        roles = spec.roles_for(len(operands))
        given: dict[str, Any] = {}
        nodes = tuple(node_of(o, r.kind, given, name) for o, r in zip(operands, roles, strict=True))
        return self.trace(Call(name, nodes), seed=seed, given=given, on_progress=on_progress, **how).result

    def evaluate(
        self,
        expression: str | Expression | Node,
        *,
        seed: Seed = 0,
        on_progress: OnProgress | None = None,
        **how: Any,
    ) -> Embedding:
        """An expression -> its embedding; a list of seeds gives a row each. how: as in apply."""
        return self.trace(expression, seed=seed, on_progress=on_progress, **how).result

    def trace(
        self,
        expression: str | Expression | Node,
        *,
        seed: Seed = 0,
        given: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
        **how: Any,
    ) -> Trace:
        """As evaluate, and keeps the embedding of every node. given: values of the expression's `$key`
        operands.

        Every sampling node has a generator a row: its own @seed, else the row's seed, so that a row is the
        same alone and in a batch.
        """
        layout, seeds = self.plan(expression), seed_list(seed)
        run = Evaluation(self, layout, given or {}, seeds, Settings.of(how), on_progress)
        vectors = run.execute()
        values = {node: self._embedding(v) for node, v in vectors.items()}
        provenance = {
            "expression": str(expression) if not isinstance(expression, Node) else to_text(expression),
            "seeds": seeds,
            **run.settings.given(),
            "inputs": inputs_of(layout),
        }
        return Trace(layout, values, self._embedding(vectors[layout.root].expand(run.rows, -1), provenance))

    def plan(self, expression: str | Expression | Node) -> Plan:
        """What an expression will compute, in levels. ExpressionError where it is wrong; touches no file."""
        if isinstance(expression, Node):
            return plan(expression, self.operators, text=to_text(expression))
        if isinstance(expression, str):
            return plan(parse(expression), self.operators, text=expression)
        return plan(expression.root, self.operators, text=expression.text)

    def _embedding(self, vectors: Tensor, provenance: Mapping[str, Any] | None = None) -> Embedding:
        from pops.embedding import Embedding

        about = {
            "model": self.source,
            **self.extra,
            "model_version": self.version,
            "pops": __version__,
            **(provenance or {}),
        }
        return Embedding(vectors.contiguous(), self.space.id, about)

    def encode_photos(self, photos: Sequence[str | Path | Image.Image], fit: str) -> Tensor:
        """Photos -> vectors [n, D] in one batch; all are opened before the tower is read."""
        from pops.images import load_photo

        side = int(self.files.info.get("photo_side", PHOTO_SIDE))
        return self.space.encode_images([load_photo(photo, fit=fit, size=side) for photo in photos])

    # --- pictures
    # --------------------------------------------------------------------------------------------

    def render(
        self,
        embedding: Embedding,
        *,
        seed: Seed = 0,
        num_images: int = 1,
        renderer: str | None = None,
        on_progress: OnProgress | None = None,
        on_preview: OnPreview | None = None,
        **how: Any,
    ) -> list[Any]:
        """Pictures of every row: row i's picture j has seed s + j (s: the seed, or the row's of a list); row
        by row.

        how: size (height, width), steps, guidance, prompt, negative, output ("pil", "latent"), ...; see
        RenderOptions. A picture's `info["pops"]` is its recipe, as save_picture keeps it.
        """
        from pops.rendering import render

        return render(
            self.renderer(renderer),
            embedding,
            seeds=seed_list(seed),
            num_images=num_images,
            how=how,
            on_progress=on_progress,
            on_preview=on_preview,
        )

    def mix(
        self,
        layout: Any,
        content: Any,
        *,
        seed: Seed = 0,
        num_images: int = 1,
        output: str = "pil",
        fit: str = "squash",
        renderer: str | None = None,
        on_progress: OnProgress | None = None,
        on_note: Callable[[str], None] | None = None,
        **how: Any,
    ) -> Any:
        """MagicMix: the layout's shape with the content's look; a picture, or a list where anything is a list.

        layout, content: a photo (a path, or a string that names one; a PIL image), a text, an Embedding or its file,
        an expression, or a list of them; photos and expressions as content go through IP-Adapter. how: nu, k_min,
        k_max, steps, guidance, strength, negative, inject, size; see MixSettings and MagicMix.__call__. fit: of
        photos as content. A picture's `info["pops"]` is its recipe.
        """
        from pops.mixing import Mixing

        asked = Mixing(self, layout, content, seeds=seed_list(seed), num_images=num_images, fit=fit, how=how)
        pictures = asked.run(self.mixer(renderer), output=output, on_progress=on_progress, on_note=on_note)
        many = asked.many or isinstance(seed, (list, tuple, range)) or len(pictures) > 1
        return pictures if many else pictures[0]

    def illustrate(
        self, trace: Trace, nodes: Sequence[Node] | None = None, *, row: int = 0, seed: int = 0, **how: Any
    ) -> dict[Node, Image.Image]:
        """A picture of every node of an evaluation (or of these), for figures: photos as they are, the rest
        rendered.

        row: of the batch; how: as render.
        """
        from pops.embedding import Embedding
        from pops.images import load_photo

        wanted = list(trace.values if nodes is None else nodes)
        fit = str(trace.result.provenance["fit"])
        pictures: dict[Node, Image.Image] = {
            n: load_photo(n.path, fit=fit, size=PHOTO_SIDE) for n in wanted if isinstance(n, Photo)
        }
        rendered = [n for n in wanted if n not in pictures and n in trace.values]
        if rendered:
            rows = [trace.values[n] for n in rendered]
            together = Embedding.cat([e[row if e.n > 1 else 0] for e in rows])
            pictures |= dict(zip(rendered, self.render(together, seed=seed, **how), strict=True))
        return pictures

    def __call__(
        self,
        expression: str | Expression | Node,
        *,
        seed: Seed = 0,
        num_images: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str = "ancestral",
        fit: str = "squash",
        render_steps: int | None = None,
        render_guidance: float | None = None,
        on_progress: OnProgress | None = None,
        **render: Any,
    ) -> list[Any]:
        """Evaluates, then renders, each row of a list of seeds with its own. render: see Pops.render."""
        e = self.evaluate(
            expression,
            seed=seed,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            fit=fit,
            on_progress=on_progress,
        )
        how = {**render, "steps": render_steps, "guidance": render_guidance}
        return self.render(e, seed=seed, num_images=num_images, on_progress=on_progress, **how)
