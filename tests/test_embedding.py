"""Embedding: a value with a checked shape, arithmetic that knows its space, and an exact file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pops.embedding import Embedding
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
def test_what_are_no_vectors(vectors: Any) -> None:
    with pytest.raises(EmbeddingError, match="vectors are a"):
        Embedding(vectors, "s")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_named_by_row(value: float) -> None:
    vectors = torch.ones(3, 4)
    vectors[1, 2] = value
    with pytest.raises(EmbeddingError, match="in vector 1 of 3"):
        Embedding(vectors, "s")


def test_an_embedding_names_its_space() -> None:
    with pytest.raises(EmbeddingError, match="names its space"):
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


def test_what_does_not_go_together() -> None:
    with pytest.raises(EmbeddingError, match="2 and 3 vectors"):
        Embedding.weighted([(1.0, some(2)), (1.0, some(3))])
    with pytest.raises(EmbeddingError, match="finite"):
        Embedding.weighted([(float("nan"), some(2))])
    for put_together in (Embedding.cat, lambda es: Embedding.weighted([(1.0, e) for e in es])):
        with pytest.raises(SpaceError, match="'t' came where 's' is used"):
            put_together([some(), some(space="t")])
        with pytest.raises(EmbeddingError, match="4 and 5 numbers"):
            put_together([some(), some(dim=5)])
        with pytest.raises(EmbeddingError, match="at least one"):
            put_together([])


def test_require_space() -> None:
    some().require_space("s")
    with pytest.raises(SpaceError, match="'s' came where 'other' is used"):
        some().require_space("other")


def test_a_file_gives_back_every_bit(tmp_path: Path) -> None:
    e = some(3, space="clip-vit-bigg-14", expression="union(犬.png, b.png)", seeds=[0, 1, 2])
    e.save(tmp_path / "deep" / "e.safetensors")
    back = Embedding.load(tmp_path / "deep" / "e.safetensors")
    assert torch.equal(back.vectors, e.vectors)
    assert (back.space, back.provenance) == (e.space, e.provenance)
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_files_are_named_safetensors(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"ends in \.safetensors"):
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
def test_files_of_other_things(tmp_path: Path, tensors: Any, metadata: Any, message: str) -> None:
    path = tmp_path / "e.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(EmbeddingError, match=message) as caught:
        Embedding.load(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    some().save(path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:-1], whole[:20], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(EmbeddingError, match=r"no \.safetensors file"):
            Embedding.load(path)
    with pytest.raises(EmbeddingError, match="is a folder"):
        Embedding.load(tmp_path)
    with pytest.raises(EmbeddingError, match="does not exist"):
        Embedding.load(tmp_path / "f.safetensors")
