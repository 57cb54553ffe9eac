"""Embedding: a value of a checked shape, arithmetic that checks spaces, and an exact file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pops.embedding import UNKNOWN_SPACE, Embedding
from pops.errors import EmbeddingError, SpaceError


def some(n: int = 3, dim: int = 4, space: str = "s", **provenance: Any) -> Embedding:
    return Embedding(torch.randn(n, dim, generator=torch.Generator().manual_seed(n)), space, provenance)


def test_vectors_are_float32_on_the_cpu_and_checked() -> None:
    e = Embedding(torch.ones(2, 4, dtype=torch.float16, requires_grad=True), "s")
    assert e.vectors.dtype == torch.float32 and not e.vectors.requires_grad
    assert (e.n, e.dim, len(e), e.space, e.provenance) == (2, 4, 2, "s", {})


@pytest.mark.parametrize(
    "vectors",
    [
        torch.ones(4),
        torch.ones(1, 2, 4),
        torch.ones(0, 4),
        torch.ones(2, 0),
        torch.ones(2, 4).long(),
        [[1.0]],
        None,
    ],
)
def test_other_values_than_vectors_are_refused(vectors: Any) -> None:
    with pytest.raises(EmbeddingError, match="vectors must be a"):
        Embedding(vectors, "s")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_named_by_row(value: float) -> None:
    vectors = torch.ones(3, 4)
    vectors[1, 2] = value
    with pytest.raises(EmbeddingError, match="in vector 1 of 3"):
        Embedding(vectors, "s")


def test_an_embedding_names_its_space() -> None:
    with pytest.raises(EmbeddingError, match="space is empty"):
        Embedding(torch.ones(1, 4), "")


def test_items_stay_embeddings() -> None:
    e = some(3, seed=7)
    assert torch.equal(e[1].vectors, e.vectors[1:2]) and torch.equal(e[-1].vectors, e.vectors[2:])
    assert torch.equal(e[1:].vectors, e.vectors[1:]) and e[0].provenance == {"seed": 7}
    assert [item.n for item in e] == [1, 1, 1]
    with pytest.raises(IndexError):
        e[3]


def test_the_maps_given_are_not_shared() -> None:
    provenance = {"seed": 1}
    e = Embedding(torch.ones(1, 2), "s", provenance)
    provenance["seed"] = 2
    assert e.provenance == {"seed": 1}


def test_cat() -> None:
    a, b = some(1, seed=1), some(2, seed=2)
    both = Embedding.cat([a, b])
    assert torch.equal(both.vectors, torch.cat([a.vectors, b.vectors]))
    assert both.provenance == {"parts": [{"seed": 1}, {"seed": 2}]}
    assert Embedding.cat([a, a]).provenance == {"seed": 1}


def test_weighted_sums_broadcast_one_to_many() -> None:
    a, b = some(1), some(3)
    total = Embedding.weighted([(0.25, a), (-2.0, b)])
    torch.testing.assert_close(total.vectors, 0.25 * a.vectors - 2 * b.vectors)
    assert total.n == 3 and [p["weight"] for p in total.provenance["sum"]] == [0.25, -2.0]


def test_what_cannot_be_combined() -> None:
    with pytest.raises(EmbeddingError, match="2 and 3 vectors"):
        Embedding.weighted([(1.0, some(2)), (1.0, some(3))])
    with pytest.raises(EmbeddingError, match="finite"):
        Embedding.weighted([(float("nan"), some(2))])
    for combine in (Embedding.cat, lambda es: Embedding.weighted([(1.0, e) for e in es])):
        with pytest.raises(SpaceError, match="'t' cannot be used in space 's'"):
            combine([some(), some(space="t")])
        with pytest.raises(EmbeddingError, match="4 and 5 numbers"):
            combine([some(), some(dim=5)])
        with pytest.raises(EmbeddingError, match="at least one"):
            combine([])


def test_require_space() -> None:
    some().require_space("s")
    with pytest.raises(SpaceError, match="'s' cannot be used in space 'other'"):
        some().require_space("other")


def test_a_file_gives_back_every_bit(tmp_path: Path) -> None:
    e = some(3, space="clip-vit-bigg-14", expression="union(犬.png, b.png)", seeds=[0, 1, 2])
    e.save(tmp_path / "deep" / "e.safetensors")
    back = Embedding.load(tmp_path / "deep" / "e.safetensors")
    assert torch.equal(back.vectors, e.vectors)
    assert (back.space, back.provenance) == (e.space, e.provenance)
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_files_are_named_safetensors(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"must end in \.safetensors"):
        some().save(tmp_path / "e.pt")
    assert list(tmp_path.iterdir()) == []


GOOD = {"format": "pops.embedding", "version": "1", "space": "s", "provenance": "{}"}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"embeds": torch.ones(2, 4)}, {}, "holds no embedding of pops"),
        ({"weight": torch.ones(2, 4)}, GOOD, "holds no embedding of pops"),
        ({"embeds": torch.ones(2, 4)}, {**GOOD, "version": "2"}, "has version 2"),
        ({"embeds": torch.ones(4)}, GOOD, "is damaged"),
        ({"embeds": torch.ones(2, 4).long()}, GOOD, "is damaged"),
        ({"embeds": torch.full((2, 4), torch.nan)}, GOOD, "is damaged .NaN"),
        ({"embeds": torch.ones(2, 4)}, {**GOOD, "space": ""}, "is damaged"),
        ({"embeds": torch.ones(2, 4)}, {**GOOD, "provenance": "{torn"}, "is damaged"),
        ({"embeds": torch.ones(2, 4)}, {**GOOD, "provenance": "[]"}, "is damaged"),
    ],
)
def test_other_safetensors_files_are_refused(tmp_path: Path, tensors: Any, metadata: Any, message: str) -> None:
    path = tmp_path / "e.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(EmbeddingError, match=message) as caught:
        Embedding.load(path)
    assert str(path) in str(caught.value)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    some().save(path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:-1], whole[:20], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(EmbeddingError, match=r"e\.safetensors cannot be read"):
            Embedding.load(path)
    with pytest.raises(EmbeddingError, match="is a folder"):
        Embedding.load(tmp_path)
    with pytest.raises(EmbeddingError, match="does not exist"):
        Embedding.load(tmp_path / "f.safetensors")


# --- other programs' files ---------------------------------------------------------------------------

E = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("suffix", [".npy", ".ipadpt", ".NPY"])
def test_files_for_other_programs_are_read_again(tmp_path: Path, suffix: str) -> None:
    e = Embedding(E, "s", {"seed": 1})
    e.save(tmp_path / f"e{suffix}")
    back = Embedding.load(tmp_path / f"e{suffix}")
    assert torch.equal(back.vectors, E) and back.space == UNKNOWN_SPACE
    assert back.provenance == {"file": str(tmp_path / f"e{suffix}")}
    if suffix == ".ipadpt":  # as ComfyUI's loader reads it
        assert torch.equal(torch.load(tmp_path / "e.ipadpt", weights_only=True), E)
    else:
        assert np.array_equal(np.load(tmp_path / f"e{suffix}"), E.numpy())


@pytest.mark.usefixtures("pickles_here")
@pytest.mark.parametrize(
    ("held", "vectors"),
    [
        (E[0], E[:1]),
        (E, E),
        (E[None], E),
        (E[:, None], E),
        (E.half(), E.half().float()),
        (E.bfloat16().requires_grad_(), E.bfloat16().float()),
        ({"image_embeds": E, "other": 3}, E),
        ([torch.stack([torch.zeros(2, 4), E])], E),  # diffusers: [negative; positive] of two images
        ([torch.cat([torch.ones(1, 1, 4), E[:1, None]])], E[:1]),
        ([torch.cat([torch.ones(2, 1, 4), E[:, None]])], E),  # of two prompts
        ([E[:1, None]], E[:1]),  # without guidance
    ],
)
def test_pickled_embeddings(tmp_path: Path, held: Any, vectors: torch.Tensor) -> None:
    torch.save(held, tmp_path / "e.ipadpt")
    e = Embedding.load(tmp_path / "e.ipadpt")
    assert torch.equal(e.vectors, vectors) and e.space == UNKNOWN_SPACE


@pytest.mark.usefixtures("pickles_here")
def test_outputs_that_the_papers_code_saved(tmp_path: Path) -> None:
    from diffusers.pipelines.kandinsky import KandinskyPriorPipelineOutput
    from transformers.models.clip.modeling_clip import CLIPVisionModelOutput

    for output in (
        KandinskyPriorPipelineOutput(image_embeds=E, negative_image_embeds=torch.zeros_like(E)),
        KandinskyPriorPipelineOutput(image_embeds=E.half(), negative_image_embeds=None),
        CLIPVisionModelOutput(image_embeds=E, last_hidden_state=torch.ones(1, 3, 4)),
    ):
        torch.save(output, tmp_path / "e.pth")
        torch.testing.assert_close(Embedding.load(tmp_path / "e.pth").vectors, E, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("pickles_here")
@pytest.mark.parametrize(
    ("held", "says"),
    [
        (torch.ones(2, 257, 4), r"holds a tensor \[2, 257, 4\]; an embedding is"),
        (torch.tensor(1.0), r"holds a tensor \[\]; an embedding is"),
        (torch.ones(2, 4).long(), "does not hold a floating-point tensor"),
        (torch.full((2, 4), torch.nan), "NaN or infinity"),
        ([torch.ones(2, 1, 4)] * 2, "a list of 2 tensors"),
        ([torch.ones(2, 1, 257, 4)], r"the first \[2, 1, 257, 4\]"),
        ([], "holds a list without an embedding"),
        ({"weight": E}, "without an embedding; save the tensor alone"),
        (Path("x"), "asks for pathlib"),
    ],
)
def test_pickles_without_an_embedding_are_refused(tmp_path: Path, held: Any, says: str) -> None:
    path = tmp_path / "e.pth"
    torch.save(held, path)
    with pytest.raises(EmbeddingError, match=says) as caught:
        Embedding.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ones((2, 4), dtype=np.int64), "no floating-point array"),
        (np.array([{}], dtype=object), "not a readable .npy file of numbers"),
        (np.ones((2, 3, 4)), "an embedding is"),
        (None, "not a readable .npy file of numbers"),
    ],
)
def test_arrays_without_an_embedding_are_refused(tmp_path: Path, array: Any, says: str) -> None:
    path = tmp_path / "e.npy"
    path.write_bytes(b"junk") if array is None else np.save(path, array, allow_pickle=True)
    with pytest.raises(EmbeddingError, match=says) as caught:
        Embedding.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_of_other_precisions(tmp_path: Path) -> None:
    for dtype in ("<f2", "<f8", ">f4"):
        np.save(tmp_path / "e.npy", E.numpy().astype(dtype))
        torch.testing.assert_close(Embedding.load(tmp_path / "e.npy").vectors, E, rtol=1e-3, atol=1e-3)


def test_an_unknown_space_fits_any_of_its_width() -> None:
    unknown, known = Embedding(E, UNKNOWN_SPACE), Embedding(E, "s")
    unknown.require_space("s")
    known.require_space(UNKNOWN_SPACE)
    assert Embedding.cat([unknown, known]).space == "s"
    assert Embedding.weighted([(1.0, unknown), (1.0, unknown)]).space == UNKNOWN_SPACE
    with pytest.raises(SpaceError, match="'t' cannot be used in space 's'"):
        Embedding.cat([unknown, known, Embedding(E, "t")])
    with pytest.raises(EmbeddingError, match="4 and 5 numbers"):
        Embedding.cat([known, Embedding(torch.ones(1, 5), UNKNOWN_SPACE)])


def test_pipes_devices_and_hostile_files_are_one_line(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".npy", ".pth"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        with pytest.raises(EmbeddingError, match="not a regular file"):
            Embedding.load(tmp_path / f"pipe{suffix}")
    with pytest.raises(EmbeddingError, match="not a regular file"):
        Embedding.load("/dev/zero")
    for header in (
        b"{" * 2000,
        b"(" * 9000,
        b"{'shape': (9**9**9,)}",
        b"{'descr': '<f4', 'shape': (10**12,)}",
        b"\xff" * 60,
    ):
        head = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        (tmp_path / "e.npy").write_bytes(head)
        with pytest.raises(EmbeddingError, match="not a readable .npy"):
            Embedding.load(tmp_path / "e.npy")
    for provenance in ("[" * 5000, '{"a": ' + "9" * 5000 + "}"):
        save_file({"embeds": torch.ones(1, 4)}, tmp_path / "e.safetensors", {**GOOD, "provenance": provenance})
        with pytest.raises(EmbeddingError, match="is damaged"):
            Embedding.load(tmp_path / "e.safetensors")
    with pytest.raises(EmbeddingError) as caught:
        Embedding.load("x" * 100_000 + ".npy")
    assert len(str(caught.value)) < 400
