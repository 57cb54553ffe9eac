"""What few examples need: a start from another operator, blending, validation with the best kept, an honest verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from pops.errors import CheckpointError, ConfigError
from pops.operators.checkpoint import put_on
from pops.prior.condition import Condition
from pops.prior.transformer import PriorModel
from pops.standardise import ClipStats
from pops.training import losses
from pops.training.checkpoints import CHECKPOINT
from pops.training.config import TrainConfig
from pops.training.data import EmbeddingData, make_batch
from pops.training.learning import verdict
from pops.training.start import Start
from pops.training.trainable import Trainable, new_prior
from pops.training.trainer import train
from pops.training.validation import Validation, figures, share_error

DIM, N = 16, 40


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def config(**changes: Any) -> TrainConfig:
    plain = {"operator": "twin", "steps": 4, "batch_size": 8, "warmup": 0, "log_every": 1}
    return TrainConfig(**{**plain, **changes})


@pytest.fixture(scope="module")
def pairs() -> EmbeddingData:
    a = randn(N, 2, DIM)
    return EmbeddingData(target=(a[:, 0] + a[:, 1].flip(1)) / 2, operands=a)


@pytest.fixture(scope="module")
def base(pairs: EmbeddingData) -> PriorModel:
    return new_prior(pairs.stats(), layers=2, heads=2, head_dim=8, seed=3)


def batch_of(data: EmbeddingData, base: PriorModel, size: int, **changes: Any) -> Any:
    rows, gen = torch.arange(size) % len(data), torch.Generator().manual_seed(0)
    return make_batch(data, rows, config=config(**changes), stats=base.stats, gen=gen)


# -- samples ---------------------------------------------------------------------------------------


def test_blending_takes_operands_and_target_alike(pairs: EmbeddingData, base: PriorModel) -> None:
    plain, blended = batch_of(pairs, base, 4000), batch_of(pairs, base, 4000, blend_share=0.6)
    changed = (plain.target != blended.target).any(dim=1)
    assert float(changed.float().mean()) == pytest.approx(0.6, abs=0.04)
    operands = (plain.condition.tokens != blended.condition.tokens).flatten(1).any(dim=1)
    assert float((changed == operands).float().mean()) > 0.99  # but for blends with another copy of the same sample
    # The truth of these pairs is linear in the operands, so it holds for a blend, too.
    a = blended.condition.tokens * base.stats.std + base.stats.mean
    truth = ((a[:, 0] + a[:, 1].flip(1)) / 2 - base.stats.mean) / base.stats.std
    torch.testing.assert_close(blended.target, truth, rtol=1e-4, atol=1e-4)


def test_only_samples_with_the_same_words_and_operands_are_blended(base: PriorModel) -> None:
    words, present = torch.arange(12) % 3, torch.ones(12, 2, dtype=torch.bool)
    present[:3, 1] = False
    target = F.one_hot(words, DIM).float()  # the word's own: a blend of two words would show
    target[:3] = 7.0
    data = EmbeddingData(
        target, randn(12, 2, DIM), words, None, randn(3, 2, DIM), torch.tensor([2, 2, 2]), present=present
    )
    batch = batch_of(data, base, 1200, blend_share=1.0)
    plain = ((data.target - base.stats.mean) / base.stats.std)[torch.arange(1200) % 12]
    torch.testing.assert_close(batch.target, plain, rtol=1e-4, atol=1e-5)
    assert (batch.condition.tokens[:, 0] != batch_of(data, base, 1200).condition.tokens[:, 0]).any()


def test_a_missing_operand_is_a_zero_token(pairs: EmbeddingData, base: PriorModel) -> None:
    present = torch.ones(N, 2, dtype=torch.bool)
    present[3, 1] = False
    data = EmbeddingData(pairs.target, pairs.operands, present=present)
    tokens = batch_of(data, base, N, operand_noise=0.5).condition.tokens
    assert not tokens[3, 1].any() and bool(tokens[3, 0].any()) and int((tokens == 0).all(dim=2).sum()) == 1


# -- losses and parts ------------------------------------------------------------------------------


def test_further_losses_are_per_item() -> None:
    stats = ClipStats(randn(DIM), randn(DIM, seed=1).abs() + 0.5)
    x0, z = randn(5, DIM, seed=2), randn(5, DIM, seed=3)
    e, truth = x0 * stats.std + stats.mean, z * stats.std + stats.mean
    torch.testing.assert_close(losses.cosine(x0, z, stats), 1 - F.cosine_similarity(e, truth))
    near = torch.stack([F.cosine_similarity(e[i][None], truth) for i in range(5)]) / 0.05
    torch.testing.assert_close(
        losses.contrastive(x0, z, stats), near.logsumexp(1) - near.diagonal(), rtol=1e-4, atol=1e-4
    )


def test_parts_of_a_batch_add_up_to_it(tmp_path: Path, pairs: EmbeddingData, base: PriorModel) -> None:
    for n in (1, 4):
        train(config(steps=1, accumulate=n), pairs, base, tmp_path / str(n))
    whole, parts = (load_file(tmp_path / str(n) / CHECKPOINT) for n in (1, 4))
    gradients = [name for name in whole if name.endswith("/exp_avg")]  # a tenth of the first step's gradient
    assert len(gradients) > 10
    for name in gradients:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-6)
    with pytest.raises(ConfigError, match="must divide by accumulate, got 3"):
        config(accumulate=3)


def test_first_blocks_alone_are_trained(tmp_path: Path, pairs: EmbeddingData, base: PriorModel) -> None:
    for rank in (0, 2):
        names = set(Trainable(base, config(blocks=1, rank=rank)).trained())
        assert any("transformer_blocks.0." in n for n in names) and "proj_in.weight" in names
        assert not any("transformer_blocks.1." in n or n.startswith(("norm_out", "proj_to_clip")) for n in names)
    made = train(config(blocks=1, rank=2), pairs, base, tmp_path).prior.transformer.state_dict()
    own = base.transformer.state_dict()
    changed = {n for n in own if not torch.equal(own[n], made[n])}
    assert changed and not any("transformer_blocks.1." in n for n in changed)


# -- starting from an operator ---------------------------------------------------------------------


@pytest.mark.parametrize("rank", [2, 4])
def test_a_start_gives_the_operators_own_results(
    tmp_path: Path, pairs: EmbeddingData, base: PriorModel, rank: int
) -> None:
    earlier = train(config(rank=2, lr=1e-2), pairs, base, tmp_path / "earlier")
    model = Trainable(base, config(rank=rank), earlier.weights)
    z, t, tokens = randn(3, DIM), torch.tensor([3, 500, 999]), pairs.operands[:3]  # type: ignore[index]
    want = put_on(base, earlier.weights).predict_slots(z, t, tokens)
    torch.testing.assert_close(model(z, t, Condition(tokens)), want, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(base.predict_slots(z, t, tokens), want, atol=1e-3)


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path, pairs: EmbeddingData, base: PriorModel) -> None:
    adapter, whole = (train(config(rank=r), pairs, base, tmp_path / str(r)).weights for r in (4, 0))
    with pytest.raises(CheckpointError, match="which this run does not train"):
        Trainable(base, config(rank=2), adapter)
    with pytest.raises(CheckpointError, match="is a whole prior: set rank=0"):
        Trainable(base, config(rank=2), whole)
    assert Start("x", adapter).rank == 4 and Start("x", whole).rank == 0 and Start("base").rank is None
    again = Trainable(base, config(), whole).trained()
    assert all(torch.equal(again[n], whole[n]) for n in again)


def test_another_start_is_another_run(tmp_path: Path, pairs: EmbeddingData, base: PriorModel) -> None:
    one, two = (train(config(rank=2, seed=s), pairs, base, tmp_path / str(s)).weights for s in (0, 1))
    train(config(rank=2), pairs, base, tmp_path / "run", start=one, stop_at=2)
    with pytest.raises(ConfigError, match="another run \\(start: "):
        train(config(rank=2), pairs, base, tmp_path / "run", start=two)
    assert train(config(rank=2), pairs, base, tmp_path / "run", start=one).step == 4


# -- validation ------------------------------------------------------------------------------------


def scores(*values: float) -> Any:
    left = list(values)
    return lambda model: {"score": left.pop(0), "beats_average": 0.0}


def test_the_best_is_kept_and_patience_ends_the_run(tmp_path: Path, pairs: EmbeddingData, base: PriorModel) -> None:
    how = config(steps=10, eval_every=1, patience=3)
    done = train(how, pairs, base, tmp_path / "a", validate=scores(0.1, 0.2, 0.5, 0.4, 0.3, 0.45, 0.9))
    assert done.step == 5 and done.best["step"] == 2 and done.best["score"] == 0.5
    two = train(config(steps=10), pairs, base, tmp_path / "b", stop_at=2)
    assert all(torch.equal(two.weights[n], v) for n, v in done.weights.items())
    again = train(how, pairs, base, tmp_path / "a", validate=scores())  # a finished run asks nothing
    assert again.step == 5 and all(torch.equal(again.weights[n], v) for n, v in done.weights.items())


def test_validation_survives_a_stop(tmp_path: Path, pairs: EmbeddingData, base: PriorModel) -> None:
    how, truth = config(steps=6, eval_every=2, patience=5, lr=1e-2), pairs.target
    validate = Validation(pairs, pairs.operands.mean(dim=1), base, truth, truth.mean(dim=0))  # type: ignore[union-attr]
    train(how, pairs, base, tmp_path / "a", validate=validate)
    train(how, pairs, base, tmp_path / "b", validate=validate, stop_at=3)
    train(how, pairs, base, tmp_path / "b", validate=validate)
    one, two = (load_file(tmp_path / x / CHECKPOINT) for x in "ab")
    assert set(one) == set(two) and any(n.startswith("best/") for n in one)
    assert all(torch.equal(one[n], two[n]) for n in one)
    logs = [(tmp_path / x / "log.jsonl").read_text().splitlines() for x in "ab"]
    looks = [[json.loads(line) for line in log if "validation" in line] for log in logs]
    assert looks[0] == looks[1] and [row["step"] for row in looks[0]] == [0, 2, 4, 6]
    with pytest.raises(ConfigError, match="eval_every needs held-out samples"):
        train(how, pairs, base, tmp_path / "c")


def test_a_constant_guess_is_not_taken_for_learning() -> None:
    """With unrelated operands the mean result beats their average nearly always; the verdict sees through it."""
    truth = randn(60, DIM) + 1.5
    guess, average = truth.mean(dim=0).expand(60, -1), randn(60, DIM, seed=1) + 0.2
    found = figures(guess, average, truth, truth.mean(dim=0))
    assert found["beats_average"] > 0.9 and verdict(found, 60).startswith("not learnt")
    assert "one constant guess, the mean of the training results, is nearer" in verdict(found, 60)
    assert verdict(figures(truth, average, truth, truth.mean(dim=0)), 60).startswith("learnt:")
    some = {**found, "beats_average": 0.7, "beats_constant": 0.9}
    assert verdict(some, 60).startswith("learnt in part") and verdict({**some, "beats_average": 0.5}, 60)[:3] == "not"
    assert share_error(torch.ones(5)) > 0.1
