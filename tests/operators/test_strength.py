"""Strength: how far a result lies from the mean of its image operands, against the formula in the plain space."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import pops
from pops.errors import ConfigError, OperandError, PopsError
from pops.operators.operator import Operator, TextPrior, sample
from pops.operators.spec import BUILTIN, OperatorSpec
from pops.prior.condition import Condition
from pops.prior.transformer import PriorModel
from pops.seeds import generator, generators
from pops.standardise import ClipStats
from pops.training.trainer import new_prior

DIM = 16


@pytest.fixture(scope="module")
def prior() -> PriorModel:
    stats = ClipStats(torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))
    return new_prior(stats, layers=2, heads=2, head_dim=12, seed=1)


def embeddings(count: int, seed: int = 3) -> list[torch.Tensor]:
    return list(torch.randn(count, DIM, generator=generator(seed)))


def results(operator: Operator, jobs, strength: float) -> torch.Tensor:
    return operator.sample(
        operator.encode(jobs), generators(range(len(jobs))), steps=3, guidance=2.0, strength=strength
    )


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, 1.7])
def test_it_is_counted_from_the_mean_of_the_image_operands(prior, strength) -> None:
    union, (a, b, c) = Operator(BUILTIN["union"], prior), embeddings(3)
    jobs = [[a, b], [c, None], [a, a]]
    plain = results(union, jobs, 1.0)
    origin = torch.stack([(a + b) / 2, c, a])
    torch.testing.assert_close(
        results(union, jobs, strength), origin + strength * (plain - origin), rtol=1e-4, atol=1e-4
    )


def test_words_are_no_part_of_the_origin(prior) -> None:
    instruct, (a, *word) = Operator(BUILTIN["instruct"], prior), embeddings(4)
    found = results(instruct, [[a, torch.stack(word)]], 0.0)
    torch.testing.assert_close(found[0], a, rtol=1e-4, atol=1e-4)


def test_without_an_image_it_is_counted_from_the_mean_of_all_images(prior) -> None:
    union = Operator(BUILTIN["union"], prior)
    mean = prior.stats.mean.reshape(-1).float()
    torch.testing.assert_close(results(union, [[None, None]], 0.0)[0], mean, rtol=1e-4, atol=1e-4)
    hidden, embed, empty = torch.randn(4, DIM), torch.randn(1, DIM), (torch.zeros(2, DIM), torch.zeros(DIM))
    task = TextPrior(prior).task([hidden], embed, empty, strength=0.0)
    torch.testing.assert_close(sample([task], generators([0]), steps=2)[0], mean, rtol=1e-4, atol=1e-4)


def test_tasks_of_a_batch_keep_their_own(prior) -> None:
    union, (a, b) = Operator(BUILTIN["union"], prior), embeddings(2)
    condition = union.encode([[a, b]])
    tasks = [union.task(condition, 1.0, strength) for strength in (0.5, 1.0, 2.0)]
    weak, plain, strong = sample(tasks, generators([0, 0, 0]), steps=2)
    torch.testing.assert_close(plain - weak, (strong - plain) / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weak, (plain + (a + b) / 2) / 2, rtol=1e-4, atol=1e-4)


def test_the_origin_follows_rows(prior) -> None:
    union, (a, b, c) = Operator(BUILTIN["union"], prior), embeddings(3)
    both = union.encode([[a, b], [c, b]])
    alone = union.encode([[c, b]])
    for condition in (both[1:], alone.expand(1), alone.to("cpu")):
        assert condition.origin is not None and alone.origin is not None
        torch.testing.assert_close(condition.origin, alone.origin)
    assert Condition.cat([both, Condition(both.tokens)]).origin is None


def test_what_cannot_be_is_refused(prior) -> None:
    union = Operator(BUILTIN["union"], prior)
    bare = torch.randn(1, 2, DIM)
    with pytest.raises(ConfigError, match=r"strength needs to know the operands; .* Operator\.encode"):
        union.sample(bare, generators([0]), steps=1, strength=2.0)
    with pytest.raises(ConfigError, match="strength must not be negative, got -1"):
        union.sample(bare, generators([0]), steps=1, strength=-1.0)
    for strength in (-1.0, 11.0, float("nan")):
        with pytest.raises(OperandError, match="operator union: strength must be from 0 to 10, got"):
            replace(BUILTIN["union"], strength=strength)
    for told in ("strength=11", "strength=-0.1", 'strength="much"'):
        with pytest.raises(PopsError, match="strength must be from 0 to 10, got"):
            pops.load("tiny").plan(f'instruct($a, "snowy", {told})')


def test_a_specs_own_strength() -> None:
    spec = replace(BUILTIN["instruct"], strength=1.25)
    assert spec.defaults(missing=False).strength == 1.25
    assert spec.defaults(missing=True).strength == 1  # a lone operand's result has many right answers
    assert OperatorSpec.from_json(spec.to_json()) == spec
    assert "strength" not in BUILTIN["instruct"].to_json()  # read by any version


def test_every_door_passes_it_on(photos) -> None:
    p = pops.load("tiny")
    a = p.embed(photos / "a.png")
    given = {"a": a}

    def near(found: pops.Embedding, weight: float) -> bool:
        plain = p.apply("instruct", a, "snowy", strength=1).vectors
        return torch.allclose(found.vectors, a.vectors + weight * (plain - a.vectors), rtol=1e-3, atol=1e-3)

    assert near(p.apply("instruct", a, "snowy", strength=0.5), 0.5)
    assert near(p.evaluate('instruct($a, "snowy", strength=2)', given=given), 2)
    assert near(p.evaluate('instruct($a, "snowy", strength=2)', given=given, strength=3), 2)  # a call's own comes first
    assert near(p.apply("instruct", a, "snowy"), p.operators["instruct"].strength)
    recipe = pops.Recipe.of('instruct($a, "snowy")', strength=1.5)
    assert recipe.making.strength == 1.5 and pops.Recipe.from_json(recipe.to_json()) == recipe
    trace = p.run(recipe, given=given).trace
    assert trace is not None and near(trace.result, 1.5)
