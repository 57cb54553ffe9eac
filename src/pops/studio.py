"""Pops: what a user holds. It has a Model, turns calls into recipes, and runs them; it has no maths of its own.

Nothing heavy is loaded before it is needed: towers, prior, each operator and each renderer come on first use.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, TypeAlias

from pops.embedding import Embedding
from pops.errors import ConfigError, OperandError, ensure
from pops.execute import Executor
from pops.expression import Expression
from pops.expression.grammar import to_text
from pops.expression.nodes import Call, Node
from pops.expression.operands import MixOperand, Operand, operand_node
from pops.expression.plan import Plan
from pops.magicmix.spec import MIX, mix_options
from pops.models.model import Model
from pops.progress import Callbacks, OnControl, OnNote, OnPreview, OnProgress, progress_of_part
from pops.recipe import IN_PYTHON, Loading, Making, Recipe, Rendering
from pops.result import Result
from pops.runner import Runner, check_trust, root_of, threads, with_provenance
from pops.seeds import Seed, seed_list
from pops.trace import Trace

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from pops.magicmix.mix import MagicMix
    from pops.operators.operator import Operator
    from pops.operators.spec import OperatorSpec
    from pops.progress import OnImage
    from pops.render.base import Control, Renderer
    from pops.space import Space

Nu: TypeAlias = "float | Sequence[float]"

MAX_OTHERS = 4  # models kept beside the own one, for recipes that name them

logger = logging.getLogger("pops")


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
    """Loads a model by name ("tiny", "kandinsky-2-2"), folder or hub id; weights are read on first use.

    decoder: a folder or hub id to render with, where it is not the model's own; operators: more of them, or
    others, name -> operator folder, or official checkpoint (learned_prior.pth) of that operator; renderer: a
    backend's name, a renderer's folder or hub id, None for the model's own; device: "auto", "cpu", "cuda", "mps";
    dtype: of the weights, None for float32; precision: of the prior alone, dtype's or "int8" (on a CPU: a quarter of
    the memory, a few times as fast, about 2 % off); max_batch: images rendered together; library: of photos, which
    the renderer "retrieval" then answers with; adapter: the IP-Adapter's file, where it is not the renderer's own;
    controlnets: beside the renderer's own, kind ("depth", ...) -> folder or hub id; offload: renderers keep each
    network on the device only while it runs (less memory, slower).
    Raises ModelError for an unknown or absent model, CheckpointError for an operator that is not there.
    """
    loading = Loading(
        model=str(model),
        decoder=_text(decoder),
        operators={name: str(path) for name, path in (operators or {}).items()},
        renderer=renderer,
        library=_text(library),
        adapter=_text(adapter),
        controlnets={kind: str(path) for kind, path in (controlnets or {}).items()},
        device=device,
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        precision=precision,
        offload=offload or None,
        max_batch=max_batch,
    )
    return Pops(Model(loading))


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


class Pops:
    """A loaded model and what is done with it. Threads may share it."""

    def __init__(self, model: Model) -> None:
        self.model, self.runner = model, Runner(model)
        self._others: list[Pops] = []  # for recipes that name other models
        self._lock = threading.Lock()

    @classmethod
    def of(cls, recipe: Recipe) -> Pops:
        """Loads what a recipe names: its model ("tiny" unless it names one), and what goes with it.

        Raises ConfigError for a recipe that was read from a file and names more than the shipped model, unless it is
        trusted (Recipe.trusted).
        """
        check_trust(recipe.foreign)
        return cls(Model(recipe.loading))

    # --- the model's parts

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def space(self) -> Space:
        """The CLIP space."""
        return self.model.space

    @property
    def operators(self) -> Mapping[str, OperatorSpec]:
        """The specs of the model's operators by name; reads no weights."""
        return self.model.operators

    def operator(self, name: str) -> Operator:
        """An operator with its weights; OperandError for an unknown name."""
        return self.model.operator(name)

    def renderer(self, name: str | None = None, *, library: str | Path | None = None) -> Renderer:
        """A renderer by name, folder or hub id; None for the model's own. Read once."""
        return self.model.renderer(name, library=library)

    def mixer(self, renderer: str | None = None) -> MagicMix:
        """MagicMix with a renderer's networks, shared and not read again."""
        return self.model.mixer(renderer)

    # --- recipes

    def run(
        self,
        recipe: Recipe,
        *,
        given: Mapping[str, Any] | None = None,
        figures: Sequence[Literal["tree", "equation", "grid"]] = (),
        render: bool = True,
        embed: bool = False,
        on_progress: OnProgress | None = None,
        on_image: OnImage | None = None,
        on_preview: OnPreview | None = None,
        on_control: OnControl | None = None,
        on_note: OnNote | None = None,
    ) -> Result:
        """Makes what a recipe asks for: the same recipe, the same images, byte for byte on the same machine.

        A recipe that names no model is run by what is loaded; one that names another is run by that, which is loaded
        first, unless the recipe was read from a file and is not trusted (Recipe.trusted). given: values of the
        expression's `$key` operands; figures: drawings of the expression, made beside the images; render: False makes
        no images, only the trace and the figures; embed: whether the images of a mix are encoded, too (other
        expressions always have an embedding). on_image is told of every finished image, on_control of every control
        image, on_note of what the user should read (notes are in the result, too).
        Raises ConfigError, ExpressionError, OperandError or PhotoError for what cannot be made.
        """
        there, tell = self._for(recipe), Callbacks(on_progress, on_image, on_preview, on_control, on_note)
        with threads(recipe.loading.threads):
            if recipe.sweep:
                ensure(
                    not figures and not embed, "a grid has no figures and no embedding; draw one of a mix", ConfigError
                )
                return there.runner.grid(recipe, given or {}, tell)
            return there.runner.run(recipe, given or {}, tell, figures=figures, render=render, embed=embed)

    def stream(
        self,
        recipe: Recipe,
        *,
        given: Mapping[str, Any] | None = None,
        figures: Sequence[Literal["tree", "equation", "grid"]] = (),
        render: bool = True,
        embed: bool = False,
        only: Collection[int] | None = None,
        captions: Mapping[str, str] | None = None,
        on_progress: OnProgress | None = None,
        on_image: OnImage | None = None,
        on_preview: OnPreview | None = None,
        on_control: OnControl | None = None,
        on_note: OnNote | None = None,
    ) -> Iterator[Result]:
        """Makes what `run` makes, part by part: yields a Result for every batch of images as soon as it is finished,
        so that a run of thousands of seeds holds one batch at a time. The images are those of `run`, byte for byte.

        only: numbers of the images to make, counted from 0 row by row; None for all. A result's `numbers` say which it
        holds; where figures were asked for, a last one holds them. captions: of photos in figures, by path, in place of
        their files' names. The other settings are those of `run`.
        """
        there, tell = self._for(recipe), Callbacks(on_progress, on_image, on_preview, on_control, on_note)
        ensure(not recipe.sweep, "a grid over settings is one picture; make it with run", ConfigError)
        with threads(recipe.loading.threads):
            yield from there.runner.stream(
                recipe, given or {}, tell, figures=figures, render=render, embed=embed, only=only, captions=captions
            )

    def _for(self, recipe: Recipe) -> Pops:
        """The Pops whose model is what a recipe asks for: this one, or one that is loaded for it and kept."""
        asked = recipe.loading
        check_trust({k: v for k, v in recipe.foreign.items() if v != self._loaded(k)})
        if self.model.fits(asked):
            return self
        if asked.model is None:  # what it gives, over what is loaded
            over = {name: value for name, value in asked if value not in (None, {})}
            asked = self.model.loading.model_copy(update=over)
        with self._lock:
            for other in self._others:
                if other.model.fits(asked):
                    return other
            logger.info("the recipe asks for another model than %s: loading %s", self.name, asked.model)
            self._others = [*self._others[-MAX_OTHERS + 1 :], Pops(Model(asked))]
            return self._others[-1]

    def _loaded(self, setting: str) -> str | None:
        """What was loaded under a recipe's setting: "model", "operators.union"."""
        name, _, key = setting.partition(".")
        value = getattr(self.model.loading, name)
        found: str | None = value.get(key) if key else value
        return found

    # --- embeddings

    def embed(
        self, photos: str | Path | Image.Image | Sequence[str | Path | Image.Image], *, fit: str = "squash"
    ) -> Embedding:
        """Embeds photos (paths or PIL images, one or a list): a row each, un-normalised [n, D]."""
        listed: list[Any] = list(photos) if isinstance(photos, (list, tuple)) else [photos]
        return Embedding(self.model.encode_photos(listed, fit), self.space.id)

    def embed_words(self, words: str | Sequence[str]) -> Embedding:
        """Embeds texts by CLIP's text encoder, without the prior: a row each, un-normalised [n, D].

        Their cosines with photos say how well these fit the words: a search. They are no image embeddings, so an
        image of words is made from text("..."). ModelError for a model without a text encoder.
        """
        listed = [words] if isinstance(words, str) else list(words)
        encoding = self.space.encode_texts(listed)
        encoding.require_whole(listed)
        return Embedding(encoding.embeds, self.space.id)

    def apply(
        self,
        name: str,
        *operands: Operand,
        seed: Seed = 0,
        steps: int | None = None,
        guidance: float | None = None,
        strength: float | None = None,
        sampler: str = "ancestral",
        fit: str = "squash",
        on_progress: OnProgress | None = None,
    ) -> Embedding:
        """Applies one operator to its operands: paths, PIL images, Embeddings, expressions, words; None is a missing
        one.

        A list of seeds gives a row each. steps, guidance, strength: None for the operator's own. strength 0 gives the
        mean of the image operands, 1 the result as the prior says it, more goes further. fit: how photos become square.
        Raises OperandError where the operands do not fit the operator's roles.
        """
        roles = self.model.spec(name).roles_for(len(operands))
        given: dict[str, object] = {}
        nodes = tuple(operand_node(o, r.kind, given, name) for o, r in zip(operands, roles, strict=True))
        return self.trace(
            Call(name, nodes), seed=seed, given=given, steps=steps, guidance=guidance, strength=strength,
            sampler=sampler, fit=fit, on_progress=on_progress, on_note=_warn,
        ).result  # fmt: skip

    def evaluate(
        self,
        expression: str | Expression | Node,
        *,
        seed: Seed = 0,
        given: Mapping[str, Any] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        strength: float | None = None,
        sampler: str = "ancestral",
        fit: str = "squash",
        on_progress: OnProgress | None = None,
    ) -> Embedding:
        """Evaluates an expression to its embedding; a list of seeds gives a row each. Settings as in `apply`."""
        return self.trace(
            expression, seed=seed, given=given, steps=steps, guidance=guidance, strength=strength,
            sampler=sampler, fit=fit, on_progress=on_progress, on_note=_warn,
        ).result  # fmt: skip

    def trace(
        self,
        expression: str | Expression | Node,
        *,
        seed: Seed = 0,
        given: Mapping[str, Any] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        strength: float | None = None,
        sampler: str = "ancestral",
        fit: str = "squash",
        renderer: str | None = None,
        on_progress: OnProgress | None = None,
        on_note: OnNote | None = None,
    ) -> Trace:
        """As `evaluate`, and keeps the embedding of every node and the images of mixes.

        Every sampling node has one generator per row: its own @seed, else the row's seed, so that a row is the same
        alone and in a batch, to rounding. given: values of the expression's `$key` operands.
        """
        layout = self.plan(expression)
        making = Making(
            steps=steps, guidance=guidance, strength=strength, sampler=sampler, fit=fit,  # type: ignore[arg-type]  # checked
        )  # fmt: skip
        text = expression if isinstance(expression, str) else to_text(root_of(expression)[0])
        recipe = Recipe(
            expression=text, seeds=tuple(seed_list(seed)), making=making, loading=Loading(renderer=renderer)
        )
        trace = Executor(self.model).run(
            layout, seeds=recipe.seeds, making=making, given=given, renderer=renderer, on_progress=on_progress,
            on_note=on_note,
        )  # fmt: skip
        return with_provenance(trace, self.runner.settled(recipe, layout))

    def plan(self, expression: str | Expression | Node) -> Plan:
        """Plans what an expression will compute, in levels. ExpressionError where it is wrong; touches no file."""
        return self.runner.plan(expression)

    # --- images

    def render(
        self,
        embedding: Embedding,
        *,
        seed: Seed = 0,
        num_images: int = 1,
        renderer: str | None = None,
        library: str | Path | None = None,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guidance_rescale: float | None = None,
        pag_scale: float | None = None,
        prompt: str = "",
        negative: str = "",
        output: str = "pil",
        upscale: int | None = None,
        scale: float | str | Mapping[str, Any] | None = None,
        control: Mapping[str, str | Path | Image.Image | Control] | None = None,
        control_scale: float | Mapping[str, float] | None = None,
        preview_every: int = 5,
        on_progress: OnProgress | None = None,
        on_preview: OnPreview | None = None,
        on_control: OnControl | None = None,
        on_note: OnNote | None = None,
    ) -> list[Any]:
        """Renders every row. Image j of row i uses seed + j, or seed[i] + j for a list; row by row.

        renderer: as in pops.load; library: of photos, for the renderer "retrieval"; size: (height, width) in pixels;
        steps, guidance: None for the renderer's own; guidance_interval: (start, stop), shares of the steps between
        which guidance acts (arXiv 2404.07724), (0, 1) for all of them; guidance_rescale: 0 to 1, against colours that
        it makes too strong (arXiv 2305.08891); pag_scale: of perturbed-attention guidance (arXiv 2403.17377), 0 for
        none; prompt, negative: words beside the embedding; output: "pil", or "latent" for tensors; upscale: 1 leaves
        the renderer's upscaler out; scale: the embedding's weight;
        control: {"depth": photo, "canny": photo, ...}, each a path, a PIL image or, ready already, "map:PATH";
        control_scale: a number, or {kind: number}. An image's `info["pops"]` is its recipe. Raises ConfigError for what
        the renderer cannot take, SpaceError for an embedding of another space.
        """
        sources, _ = _control_sources(control)
        seeds, made = seed_list(seed), self.runner.recipe_of(embedding)
        ensure(num_images >= 1, f"num_images must be 1 or more, got {num_images}", ConfigError)
        rendering = Rendering(
            size=size, steps=steps, guidance=guidance, guidance_interval=guidance_interval,
            guidance_rescale=guidance_rescale, pag_scale=pag_scale, prompt=prompt, negative=negative, upscale=upscale,
            control=sources,
            scale=scale, control_scale=control_scale,  # type: ignore[arg-type]  # checked there
            seeds=None if made is not None and list(made.seeds) == seeds else tuple(seeds),
        )  # fmt: skip
        asked = Loading(renderer=renderer, library=_text(library))
        each = seeds if len(seeds) == embedding.n else seeds * embedding.n
        recipe = made or Recipe(expression=IN_PYTHON, seeds=tuple(each))
        recipe = recipe.model_copy(update={"rendering": rendering, "num_images": num_images, "loading": asked})
        tell = Callbacks(on_progress, None, on_preview, on_control, on_note or _warn)
        images = self.runner.rendered(
            embedding, recipe, self.runner.controls(recipe, control or {}, tell), tell, output=output,
            preview_every=preview_every,
        )  # fmt: skip
        if output != "pil":
            return images
        settled = self.runner.settled(recipe, self.plan(recipe.expression))
        return [self.runner.finished(image, settled.model_copy(update={"image": i})) for i, image in enumerate(images)]

    def mix(
        self,
        layout: MixOperand | list[Any],
        content: MixOperand | list[Any],
        *,
        seed: Seed = 0,
        num_images: int = 1,
        nu: Nu | None = None,
        k_min: float | None = None,
        k_max: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        strength: float | None = None,
        reach: Literal["words", "text"] | None = None,
        negative: str | None = None,
        inject: Literal["state", "input"] | None = None,
        size: int | tuple[int, int] | None = None,
        output: Literal["pil", "latent", "both"] = "pil",
        fit: str = "squash",
        renderer: str | None = None,
        upscale: int | None = None,
        on_progress: OnProgress | None = None,
        on_note: OnNote | None = None,
    ) -> Any:
        """Mixes the layout's shape with the content's look (MagicMix): an image, or a list where anything is a list.

        layout, content: a photo (a path, or a string that names one; a PIL image), a text, an Embedding or its file,
        an expression, the file of a latent as layout, or a list of them; photos and expressions as content go through
        IP-Adapter. Settings: see pops.magicmix.operands.MixSettings; None is the model's own, else the paper's
        (arXiv 2210.16056). fit: of photos as content; output: "pil", "latent", or "both" (pairs of them). It is the
        call mix(layout, content, ...) of the language, and an image's `info["pops"]` is its recipe.
        """
        known = output in ("pil", "latent", "both")
        ensure(known, f'output must be "pil", "latent" or "both", got {output!r}', ConfigError)
        settings = {
            "nu": nu, "k_min": k_min, "k_max": k_max, "steps": steps, "guidance": guidance, "strength": strength,
            "reach": reach, "negative": negative, "inject": inject, "size": size,
        }  # fmt: skip
        pairs = [(a, b) for a in _each(layout) for b in _each(content)]
        made: list[Any] = []
        for i, (one, other) in enumerate(pairs):
            recipe, given = self.mix_recipe(one, other, settings)
            recipe = recipe.changed(seed=seed, num_images=num_images, fit=fit, renderer=renderer, upscale=upscale)
            shown = progress_of_part(on_progress, i, len(pairs))
            result = self.run(recipe, given=given, on_progress=shown, on_note=on_note or _warn)
            pairs_of = list(zip(result, result.latents, strict=True))
            made += [
                image if output == "pil" else latent if output == "latent" else (image, latent)
                for image, latent in pairs_of
            ]
        many = isinstance(layout, list) or isinstance(content, list) or hasattr(seed, "__len__") or len(made) > 1
        return made if many else made[0]

    def mix_recipe(
        self, layout: MixOperand, content: MixOperand, settings: Mapping[str, Any]
    ) -> tuple[Recipe, dict[str, object]]:
        """Returns the recipe of one mix, and the values of its operands that no text can name."""
        options = mix_options(settings)
        given: dict[str, object] = {}
        names = self.model.calls
        nodes = tuple(
            operand_node(operand, "any", given, f"the {role.name} of a mix", names)
            for operand, role in zip((layout, content), MIX.roles, strict=True)
        )
        return Recipe(expression=to_text(Call(MIX.name, nodes, options))), given

    def __call__(
        self,
        expression: str | Expression | Node,
        *others: Never,
        seed: Seed = 0,
        num_images: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        strength: float | None = None,
        sampler: str = "ancestral",
        fit: str = "squash",
        renderer: str | None = None,
        library: str | Path | None = None,
        render_steps: int | None = None,
        render_guidance: float | None = None,
        render_guidance_interval: tuple[float, float] | None = None,
        guidance_rescale: float | None = None,
        pag_scale: float | None = None,
        size: tuple[int, int] | None = None,
        upscale: int | None = None,
        prompt: str = "",
        negative: str = "",
        scale: float | str | Mapping[str, Any] | None = None,
        control: Mapping[str, str | Path | Image.Image | Control] | None = None,
        control_scale: float | Mapping[str, float] | None = None,
        given: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
        on_preview: OnPreview | None = None,
        on_note: OnNote | None = None,
    ) -> Result:
        """Evaluates an expression and renders it, each row of a list of seeds with its own; a mix is an image already.

        Settings as in `evaluate` and `render`. The result is a list of images, and knows its recipe. It takes one
        expression; an operator's name and its operands go to `apply`.
        """
        told = f"p(...) takes one expression, got {1 + len(others)} values; give operands to p.apply(name, ...)"
        ensure(not others, told, OperandError)
        text = expression if isinstance(expression, str) else to_text(root_of(expression)[0])
        sources, values = _control_sources(control)
        recipe = Recipe.of(
            text, seed=seed_list(seed), num_images=num_images, steps=steps, guidance=guidance, strength=strength,
            sampler=sampler, fit=fit,
            renderer=renderer, library=library, render_steps=render_steps, render_guidance=render_guidance,
            render_guidance_interval=render_guidance_interval, guidance_rescale=guidance_rescale, pag_scale=pag_scale,
            size=size, prompt=prompt,
            negative=negative, scale=scale, control=sources, control_scale=control_scale, upscale=upscale,
        )  # fmt: skip
        return self.run(
            recipe, given={**(given or {}), **values}, on_progress=on_progress, on_preview=on_preview,
            on_note=on_note or _warn,
        )  # fmt: skip


def _control_sources(control: Mapping[str, Any] | None) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns what a recipe says of controls, kind -> path or `$key`, and the values of the keys."""
    told = f'control is a photo for each kind, such as {{"depth": "C.png"}}, got {control!r:.80}'
    ensure(control is None or isinstance(control, Mapping), told, ConfigError)
    sources: dict[str, str] = {}
    values: dict[str, Any] = {}
    for kind, value in (control or {}).items():
        named = isinstance(value, (str, Path))
        sources[kind] = str(value) if named else f"$control_{kind}"
        values |= {} if named else {f"control_{kind}": value}
    return sources, values


def _each(operand: Any) -> list[Any]:
    if not isinstance(operand, list):
        return [operand]
    ensure(len(operand) > 0, "the list of operands is empty; give at least one", ConfigError)
    return operand


def _warn(line: str) -> None:
    import warnings

    warnings.warn(line, stacklevel=4)
