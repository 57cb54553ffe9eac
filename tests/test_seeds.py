"""Seeds: a batch draws what its items draw alone, and only valid seeds are accepted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pops.errors import ConfigError
from pops.seeds import MAX_SEED, check_seed, generator, generators, parse_seeds, randn_items


def test_a_batch_equals_its_items_alone_bit_for_bit() -> None:
    batch = generators([3, 1, 3])
    first, second = randn_items((5,), batch), randn_items((2, 5), batch)
    for i, seed in enumerate([3, 1, 3]):
        alone = [generator(seed)]
        assert torch.equal(randn_items((5,), alone)[0], first[i])
        assert torch.equal(randn_items((2, 5), alone)[0], second[i])
    assert first.shape == (3, 5) and first.dtype == torch.float32
    assert not torch.equal(first[0], first[1])


def test_a_draw_is_torchs_own_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    expected = torch.randn(4, generator=torch.Generator().manual_seed(18))
    assert torch.equal(randn_items((4,), generators([18]))[0], expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_float_type_does_not_change_a_draw() -> None:
    expected = randn_items((4,), generators([1]))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(randn_items((4,), generators([1])), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("seed", [0, 18, MAX_SEED, np.int64(7)])
def test_seeds_in_range(seed: int) -> None:
    assert check_seed(seed) == int(seed)
    assert generator(seed).initial_seed() == int(seed)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.0, "1", None, True])
def test_other_values_are_no_seeds(seed: object) -> None:
    with pytest.raises(ConfigError, match="a seed is a whole number"):
        check_seed(seed)


def test_no_generators_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one seed"):
        randn_items((2,), [])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        ("0,3,5:8", [0, 3, 5, 6, 7]),
        (" 1 , 2 ", [1, 2]),
        ("3:4", [3]),
        (str(MAX_SEED), [MAX_SEED]),
    ],
)
def test_seeds_of_the_command_line(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "1,",
        "1.5",
        "-1",
        "5:5",
        "8:5",
        "1:2:3",
        ":3",
        "٣",
        str(MAX_SEED + 1),
        "0:99999999999",
        "9" * 5000,
    ],
)
def test_other_texts_are_no_seeds(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_seeds(text)
