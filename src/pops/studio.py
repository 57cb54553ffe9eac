"""Pops: what a user holds. It resolves operands, has plans executed, and renders; it has no maths of its own.

Nothing heavy is loaded before it is needed: towers, prior, each operator and each renderer come on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops import __version__
from pops.errors import ConfigError, ensure
from pops.execute import Evaluation
from pops.expression.grammar import parse, to_text
from pops.expression.nodes import Call, Node, Photo, is_mix
from pops.expression.plan import Plan, plan
from pops.models.model import Parts
from pops.request import (
    OnProgress,
    OnStep,
    Operand,
    Seed,
    Settings,
    Trace,
    inputs_of,
    node_of,
    seed_list,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from pops.embedding import Embedding
    from pops.expression import Expression
    from pops.render.base import OnPreview
    from pops.render.controls import OnControl


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
    library: str | Path | None = None,
    adapter: str | Path | None = None,
    controlnets: Mapping[str, str | Path] | None = None,
    offload: bool = False,
) -> Pops:
    """A model by name ("tiny", "kandinsky-2-2"), folder or hub id; weights are read on first use.

    decoder: a folder or hub id to render with, where it is not the model's own; operators: more of them, or
    others, name -> operator folder, or official checkpoint (learned_prior.pth) of that operator; renderer: a
    backend's name, a renderer's folder or hub id, None for the model's own; device: "auto", "cpu", "cuda", "mps";
    dtype: of the weights, None for float32; precision: of the prior alone, dtype's or "int8" (on a CPU: a quarter of
    the memory, a few times as fast, about 2 % off); max_batch: pictures rendered together; library: of photos, which
    the renderer "retrieval" then answers with; adapter: the IP-Adapter's file, where it is not the renderer's own;
    controlnets: beside the renderer's own, kind ("depth", ...) -> folder or hub id; offload: renderers keep each
    network on the device only while it runs (less memory, slower).
    Raises ModelError for an unknown or absent model, CheckpointError for an operator that is not there.
    """
    from pops.models.hub import resolve

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
    pops.library = library
    pops.equip(adapter=adapter, controlnets=controlnets, offload=offload)
    return pops


class Pops(Parts):
    """A loaded model: its parts, each read on first use, and what is done with them. Threads may share it."""

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
        num_images: int = 1,
        on_progress: OnProgress | None = None,
        **how: Any,
    ) -> Trace:
        """As evaluate, and keeps the embedding of every node and the pictures of mixes. given: values of the
        expression's `$key` operands; num_images: pictures of each row, where the whole expression is a mix.

        Every sampling node has a generator a row: its own @seed, else the row's seed, so that a row is the
        same alone and in a batch.
        """
        layout, seeds = self.plan(expression), seed_list(seed)
        ensure(num_images >= 1, f"num_images must be 1 or more, got {num_images}", ConfigError)
        run = Evaluation(self, layout, given or {}, seeds, Settings.of(how), on_progress, copies=num_images)
        vectors = run.execute()
        values = {node: self._embedding(v) for node, v in vectors.items()}
        provenance = {
            "expression": str(expression) if not isinstance(expression, Node) else to_text(expression),
            "seeds": seeds,
            **run.settings.given(),
            "inputs": inputs_of(layout),
        }
        result = self._embedding(vectors[layout.root].expand(run.rows, -1), provenance)
        return Trace(layout, values, result, run.pictures)

    def plan(self, expression: str | Expression | Node) -> Plan:
        """What an expression will compute, in levels. ExpressionError where it is wrong; touches no file."""
        from pops.mixing import check_mixes

        if isinstance(expression, Node):
            root, text = expression, to_text(expression)
        elif isinstance(expression, str):
            root, text = parse(expression), expression
        else:
            root, text = expression.root, expression.text
        layout = plan(root, self.operators, text=text)
        check_mixes(layout, text)
        return layout

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
        library: str | Path | None = None,
        on_progress: OnProgress | None = None,
        on_preview: OnPreview | None = None,
        on_control: OnControl | None = None,
        **how: Any,
    ) -> list[Any]:
        """Pictures of every row: row i's picture j has seed s + j (s: the seed, or the row's of a list); row
        by row.

        renderer: as in pops.load. how: size (height, width), steps, guidance, prompt, negative, output ("pil",
        "latent"), scale, ...; see RenderOptions; control: {"depth": photo, "canny": photo, ...}, each a path, a PIL
        image or, ready already, "map:PATH", with control_scale: a number, or {kind: number}; on_control is told of
        every control picture that was made; library: of photos, for the renderer "retrieval". A picture's
        `info["pops"]` is its recipe, as save_picture keeps it.
        """
        from pops.rendering import controlled, render

        backend = self.renderer(renderer, library=library)
        return render(
            backend,
            embedding,
            seeds=seed_list(seed),
            num_images=num_images,
            how={"renderer": renderer, **controlled(backend, how, self.control_maker, on_control)},
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
        an expression, the file of a latent as layout, or a list of them; photos and expressions as content go through
        IP-Adapter. how: nu, k_min, k_max, steps, guidance, strength, reach, negative, inject, size; see MixSettings and
        MagicMix.__call__. fit: of photos as content; output: "pil", "latent", or "both" (pairs of them). A picture's
        `info["pops"]` is its recipe.
        """
        from pops.mixing import Mixing

        asked = Mixing(
            self,
            layout,
            content,
            seeds=seed_list(seed),
            num_images=num_images,
            fit=fit,
            renderer=renderer,
            how=how,
        )
        pictures = asked.run(self.mixer(renderer), output=output, on_progress=on_progress, on_note=on_note)
        many = asked.many or isinstance(seed, (list, tuple, range)) or len(pictures) > 1
        return pictures if many else pictures[0]

    def mix_each(
        self,
        layouts: Sequence[Any],
        contents: Sequence[Any],
        *,
        seeds: Sequence[int],
        options: Sequence[tuple[str, Any]] = (),
        renderer: str | None = None,
        on_step: OnStep | None = None,
    ) -> list[Image.Image]:
        """Picture i of layout i, content i and seed i; options: those of mix(...) in an expression."""
        from pops.mixing import mix_each

        how: dict[str, Any] = {"options": options, "info": self.files.info, "on_step": on_step}
        return mix_each(self.mixer(renderer), layouts, contents, seeds=seeds, **how)

    def mix_calls(self, options: Sequence[tuple[str, Any]]) -> int:
        """Network calls of a mix with these options, about."""
        from pops.mixing import mix_calls

        return mix_calls(options)

    def pictures(
        self,
        trace: Trace,
        *,
        seed: Seed = 0,
        num_images: int = 1,
        renderer: str | None = None,
        on_progress: OnProgress | None = None,
        **how: Any,
    ) -> list[Any]:
        """What an evaluation shows: its embedding rendered, or, where the whole expression is a mix, that picture.

        trace: of the same seeds, and for a mix of the same num_images; how: as render, for a mix nothing.
        """
        from pops.mixing import finished

        if trace.mixed is None:
            how = {**how, "renderer": renderer, "on_progress": on_progress}
            return self.render(trace.result, seed=seed, num_images=num_images, **how)
        name = self.renderer(renderer).name
        return finished(trace, name, seeds=seed_list(seed), num_images=num_images, how=how)

    def illustrate(
        self, trace: Trace, nodes: Sequence[Node] | None = None, *, row: int = 0, seed: int = 0, **how: Any
    ) -> dict[Node, Image.Image]:
        """A picture of every node of an evaluation (or of these), for figures: photos and mixes as they are, the
        rest rendered.

        row: of the batch; how: as render.
        """
        from pops.embedding import Embedding
        from pops.images import load_photo

        wanted = list(trace.values if nodes is None else nodes)
        fit = str(trace.result.provenance["fit"])
        pictures: dict[Node, Image.Image] = {
            n: load_photo(n.path, fit=fit, size=PHOTO_SIDE) for n in wanted if isinstance(n, Photo)
        }
        for n, mixed in trace.pictures.items():
            if n in wanted:
                each = len(mixed) // (trace.result.n if n == trace.plan.root else len(trace.values.get(n, mixed)))
                pictures[n] = mixed[row * each if len(mixed) > each else 0]
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
        """Evaluates, then renders, each row of a list of seeds with its own; a mix is a picture already.

        render: see Pops.render.
        """
        trace = self.trace(
            expression,
            seed=seed,
            num_images=num_images,
            renderer=render.get("renderer") if is_mix(self.plan(expression).root) else None,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            fit=fit,
            on_progress=on_progress,
        )
        how = {**render, "steps": render_steps, "guidance": render_guidance}
        return self.pictures(trace, seed=seed, num_images=num_images, on_progress=on_progress, **how)
