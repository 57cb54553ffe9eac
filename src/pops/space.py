"""Space: the CLIP towers of a model. Images and texts -> un-normalised embeddings, float32 on the CPU.

Knows nothing of priors, operators or renderers. Each tower is read from disk on its first use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ModelError, OperandError, PopsError, SpaceError, ensure
from pops.files import read_json_object, reason
from pops.loading.lock import LOADING, TOKENIZING, once
from pops.loading.parts import TRANSFORMERS, check_files, check_network, check_tokenizer
from pops.standardise import ClipStats, standardise, unstandardise
from pops.weights import check_fit

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

__all__ = ["ClipStats", "Space", "TextEncoding", "standardise", "unstandardise"]

logger = logging.getLogger("pops.space")

BATCH = 16  # images or texts through a tower at once
KNOWN = {(1280, 1664): "clip-vit-bigg-14"}  # (projection, width) of the image encoder -> id
_INCIDENTAL = ("transformers_version", "torch_dtype", "dtype", "_name_or_path", "architectures")
_CHUNK = 65536  # bytes of weights that go into an id: so many at the beginning, in the middle and at the end


@dataclass(frozen=True, eq=False)
class TextEncoding:
    """n encoded texts. embeds: [n, D] un-normalised; hidden: of each text the last hidden states [tokens, width]
    (start, words, end; no padding); truncated: whether it was too long for the encoder and lost its end."""

    embeds: Tensor
    hidden: list[Tensor]
    truncated: list[bool]

    def require_whole(self, texts: Sequence[str]) -> None:
        """Raises OperandError for the first of these texts that lost its end."""
        long = [text for text, cut in zip(texts, self.truncated, strict=True) if cut]
        told = f"the text encoder cannot read so long a text to its end: {long[:1]}; use fewer words"
        ensure(not long, told, OperandError)


class Space:
    """One CLIP space: id, width (`dim`), pixels per side of what the image encoder reads (`image_size`), towers."""

    def __init__(
        self,
        folder: Path,
        *,
        space_id: str,
        dim: int,
        image_size: int,
        device: str,
        dtype: torch.dtype | None,
        parts: Mapping[str, Path | None] | None = None,
    ) -> None:
        self.folder, self.id, self.dim, self.image_size = folder, space_id, dim, image_size
        self._device, self._dtype, self._parts = device, dtype, dict(parts or {})

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        parts: Mapping[str, Path | None] | None = None,
    ) -> Space:
        """Opens the space of a model folder (Kandinsky 2.2 prior's layout); reads no weights yet.

        device, dtype: where and in what the towers compute (None: float32); results are float32 on the CPU.
        parts: folders of the parts that do not lie at folder/<part>.
        Raises ModelError for a folder without an image encoder.
        """
        folder = Path(folder)
        encoder = (parts or {}).get("image_encoder") or folder / "image_encoder"
        config = read_json_object(encoder / "config.json", ModelError)
        try:
            dim, width, side = (int(config[k]) for k in ("projection_dim", "hidden_size", "image_size"))
        except (KeyError, TypeError, ValueError) as e:
            raise ModelError(f"{encoder} is no CLIP image encoder ({e!r}); fetch it again") from e
        about = read_json_object(folder / "pops.json", ModelError) if (folder / "pops.json").exists() else {}
        space_id = about.get("space") or KNOWN.get((dim, width)) or _fingerprint(encoder, config, dim)
        return cls(folder, space_id=str(space_id), dim=dim, image_size=side, device=device, dtype=dtype, parts=parts)

    def __repr__(self) -> str:
        return f"Space({self.id!r}, dim={self.dim})"

    @once
    def fingerprint(self) -> str:
        """Name of the image encoder, from its config and samples of its weights. Tells versions of one space apart."""
        encoder = self._folder_of("image_encoder")
        return _fingerprint(encoder, read_json_object(encoder / "config.json", ModelError), self.dim)

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Encodes RGB images => [n, D] un-normalised, float32, CPU; CLIP's own preprocessing, 16 at a time."""
        import torch

        ensure(len(images) > 0, "no images to encode", OperandError)
        parts = []
        for start in range(0, len(images), BATCH):
            processor, batch = self._processor, list(images[start : start + BATCH])
            with self._using("image_processor"):
                pixels = processor(images=batch, return_tensors="pt")["pixel_values"]
            side = tuple(pixels.shape[-2:])
            made = f"{self._folder_of('image_processor')} makes images of {side[0]}x{side[1]}"
            reads = f"the image encoder reads {self.image_size}x{self.image_size}"
            ensure(side == (self.image_size,) * 2, f"{made}, {reads}; fetch or make the model again", ModelError)
            parts.append(self._encode_pixels(pixels))
        return torch.cat(parts)

    def encode_texts(self, texts: Sequence[str]) -> TextEncoding:
        """Encodes texts => embeddings and hidden states, 16 at a time; OperandError for anything but a text."""
        import torch

        ensure(len(texts) > 0, "no texts to encode", OperandError)
        for text in texts:
            ensure(isinstance(text, str), f"a text is a string, got {type(text).__name__}", OperandError)
            ensure(_is_unicode(text), f"{text!r} is not valid Unicode; type the text again", OperandError)
        tokenizer, limit, words = self._tokenizer, self._limit, self._text_tower.config.vocab_size
        embeds: list[Tensor] = []
        hidden: list[Tensor] = []
        truncated: list[bool] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            # The tower is causal, so padding to the longest equals padding to the limit.
            with TOKENIZING, self._using("tokenizer"):
                tokens = tokenizer(batch, padding=True, truncation=True, max_length=limit, return_tensors="pt")
            told = f"{self._folder_of('tokenizer')} has tokens that the text encoder does not know"
            ensure(int(tokens["input_ids"].max()) < words, f"{told}; fetch or make the model again", ModelError)
            truncated.extend(self.too_long(batch))
            with torch.no_grad():
                out = self._text_tower(tokens["input_ids"].to(self._device))
            rows, kept = out.last_hidden_state.float().cpu(), tokens["attention_mask"].bool()
            embeds.append(_finite(out.text_embeds.float().cpu()))
            hidden.extend(row[mask] for row, mask in zip(rows, kept, strict=True))
        return TextEncoding(torch.cat(embeds), hidden, truncated)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Returns of each text whether the encoder would cut its end off; encodes nothing."""
        with TOKENIZING, self._using("tokenizer"):
            return [len(self._tokenizer.tokenize(text)) + 2 > self._limit for text in texts]

    def zero_image_embedding(self) -> Tensor:
        """Encodes preprocessed pixels that are all zero => [1, D], Kandinsky's negative."""
        import torch

        return self._encode_pixels(torch.zeros(1, 3, self.image_size, self.image_size))

    # --- the towers, each read on first use ---

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encodes preprocessed pixels [n, 3, side, side] => [n, D] float32 on the CPU."""
        import torch

        tower = self._image_tower
        with torch.no_grad():
            return _finite(tower(pixels.to(self._device, tower.dtype)).image_embeds.float().cpu())

    @once
    def _image_tower(self) -> Any:
        from transformers import CLIPVisionModelWithProjection

        return self._tower(CLIPVisionModelWithProjection, "image_encoder")

    @once
    def _text_tower(self) -> Any:
        from transformers import CLIPTextModelWithProjection

        return self._tower(CLIPTextModelWithProjection, "text_encoder")

    @property
    def _limit(self) -> int:
        """Most tokens of a text, start and end included."""
        with self._using("tokenizer"):
            return int(min(self._tokenizer.model_max_length, self._text_tower.config.max_position_embeddings))

    @once
    def _processor(self) -> Any:
        import transformers

        # transformers 5 calls another one CLIPImageProcessor; it needs torchvision and resizes differently.
        kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
        check_files(self._folder_of("image_processor"), "preprocessor_config.json")
        return self._part(kind.from_pretrained, "image_processor")

    @once
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        check_tokenizer(self._folder_of("tokenizer"))
        return self._part(CLIPTokenizer.from_pretrained, "tokenizer")

    def _tower(self, kind: Any, name: str) -> Any:
        """Loads a tower; CheckpointError, naming them, for tensors that do not fit it exactly."""
        import torch

        path, begun = self._folder_of(name), time.perf_counter()
        variant = check_network(path, TRANSFORMERS)
        model, info = self._part(
            kind.from_pretrained,
            name,
            dtype=self._dtype or torch.float32,
            use_safetensors=True,
            variant=variant,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are in info, by name
        )
        check_fit(model, info, path)
        if model.config.projection_dim != self.dim:
            raise SpaceError(
                f"{path} gives {model.config.projection_dim} numbers, the image encoder {self.dim}; "
                "the two belong to different models"
            )
        logger.info("read %s in %.1f s", path, time.perf_counter() - begun)
        return model.eval().requires_grad_(False).to(self._device)

    def _part(self, load: Callable[..., Any], name: str, **options: Any) -> Any:
        """Loads a part from its folder, quietly; ModelError if it cannot be read."""
        path = self._folder_of(name)
        ensure(
            path.is_dir(),
            f"{self.folder} has no {name}/; a model folder has Kandinsky 2.2's layout",
            ModelError,
        )
        with LOADING, _quietly():
            try:
                return load(path, local_files_only=True, **options)
            except Exception as e:  # transformers, tokenizers and safetensors each have their own
                reason = (str(e).splitlines() or [type(e).__name__])[0]
                raise ModelError(f"{path} does not load ({reason}); fetch or make it again") from e

    @contextmanager
    def _using(self, name: str) -> Iterator[None]:
        """Turns what a part of the folder raises in use, by odd settings in its files, into a ModelError."""
        try:
            yield
        except (PopsError, MemoryError):
            raise
        except Exception as e:  # transformers and tokenizers each have their own
            raise ModelError(f"{self._folder_of(name)} cannot be used ({reason(e)}); fetch or make it again") from e

    def _folder_of(self, part: str) -> Path:
        return self._parts.get(part) or self.folder / part


def _finite(vectors: Tensor) -> Tensor:
    if not bool(vectors.isfinite().all()):
        raise PopsError("the encoder overflowed: its result is NaN or infinite; load the model with dtype float32")
    return vectors


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fingerprint(encoder: Path, config: dict[str, Any], dim: int) -> str:
    """Returns an id for a space without a name, from the image encoder's config and samples of its weights."""
    lasting = {k: v for k, v in config.items() if k not in _INCIDENTAL}
    digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode())
    for path in sorted(encoder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for at in (0, size // 2, max(0, size - _CHUNK)):
                file.seek(at)
                digest.update(file.read(_CHUNK))
    return f"clip-{dim}-{digest.hexdigest()[:12]}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps transformers' progress bars and advice off the terminal while it reads a folder."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
