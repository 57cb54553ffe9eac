"""Samples that lie in shards: missing operands, captions in place of results, splits, and the nearest start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from examples import write_examples
from pops.data import Shards
from pops.data.encode import encode_folder
from pops.errors import ConfigError
from pops.models.model import Model
from pops.operators.operator import Operator
from pops.operators.spec import Role
from pops.recipe import Loading
from pops.training.config import TrainConfig
from pops.training.data import make_batch
from pops.training.learning import learn, prepare, split_rows
from pops.training.samples import ShardSamples, average_of, list_role, plain_operands, some_of
from pops.training.spec import TrainSpec
from pops.training.start import find_start
from pops.training.validation import figures


@pytest.fixture
def model(folder: Path) -> Model:
    return Model(Loading(model=str(folder), device="cpu"))


def changed(folder: Path, change: Any) -> Path:
    """Rewrites the rows of a folder's metadata: change(i, row)."""
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for i, row in enumerate(rows):
        change(i, row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def encoded(folder: Path, model: Model) -> Shards:
    out = folder.with_suffix(".shards")
    encode_folder(folder, out, model.space, model=model.name, side=model.photo_side)
    return Shards.open(out)


def test_missing_operands_are_zero_tokens(tmp_path: Path, model: Model) -> None:
    def miss(i: int, row: dict[str, str]) -> None:
        row["split"] = "train"
        if i == 0:
            row["texture_file_name"] = ""
        if i == 1:
            row["word"] = ""

    shards = encoded(changed(write_examples(tmp_path / "x", word=True, count=6), miss), model)
    samples, stats = ShardSamples(shards, shards.rows("train")), model.prior.stats
    plain = TrainConfig(operator="x", steps=1, batch_size=6)
    batch = make_batch(samples, torch.arange(6), config=plain, stats=stats, gen=torch.Generator())
    tokens, keep = batch.condition.tokens, batch.condition.keep
    assert keep is not None and not tokens[0, 1].any() and bool(tokens[1:, 1].any(dim=1).all())
    assert not tokens[1, 2:].any() and int(keep[1].sum()) == 3  # one token stands for the missing word
    assert bool(tokens[2:, 2].any(dim=1).all()) and int(keep[2].sum()) > 3

    rows = shards.batch(shards.rows("train"))
    average = average_of(plain_operands(shards, rows))
    operands = plain_operands(shards, rows)
    torch.testing.assert_close(average[0], (operands["object"][0][0] + operands["word"][0][0]) / 2)
    torch.testing.assert_close(average[1], (operands["object"][0][1] + operands["texture"][0][1]) / 2)
    torch.testing.assert_close(average[2], sum(value[2] for value, _ in operands.values()) / 3)


def numbered(folder: Path, longest: int, fewest: int, count: int = 8) -> Path:
    """Examples of lists of pictures, of which every second has `fewest`."""

    def change(i: int, row: dict[str, str]) -> None:
        files = [row.pop("object_file_name"), row.pop("texture_file_name"), row["target_file_name"]]
        row.pop("word", None)
        there = fewest if i % 2 else longest
        row |= {f"part_{k + 1}_file_name": files[k] if k < there else "" for k in range(longest)}
        row["split"] = "train" if i < count - 2 else "validation"

    return changed(write_examples(folder, count=count), change)


def test_numbered_columns_of_which_some_rows_fill_fewer_are_a_list(tmp_path: Path, model: Model) -> None:
    shards = encoded(numbered(tmp_path / "x", 3, 2), model)
    rows = shards.rows("train")
    assert list_role(shards, rows) == Role("part")
    ready = prepare(TrainSpec(data=str(tmp_path / "x")), model, shards)
    assert (ready.operator.roles, ready.operator.repeat, ready.operator.most) == ((Role("part"),), True, 3)
    plain = TrainConfig(operator="x", steps=1, batch_size=6)
    every, stats = torch.arange(6), model.prior.stats
    batch = make_batch(ready.train, every, config=plain, stats=stats, gen=torch.Generator())
    keep = batch.condition.keep
    assert keep is not None and keep.sum(1).tolist() == [3, 2] * 3 and not keep[1, 2]  # left out, no zero token

    # What is left out is not seen: the operator, given two pictures, computes what training computes.
    operator = Operator(ready.operator, model.prior)
    of_two = operator.encode([[shards.batch([1]).images[f"part_{k}"][0] for k in (1, 2)]])
    z, t = torch.randn(1, model.prior.dim), torch.tensor([500])
    whole = model.prior.predict_x0(z, t, batch.condition[1:2])
    torch.testing.assert_close(model.prior.predict_x0(z, t, of_two), whole, atol=1e-5, rtol=1e-4)

    full = encoded(numbered(tmp_path / "full", 3, 3), model)
    assert list_role(full, full.rows("train")) is None  # all are there: three roles of their own


def test_in_any_order_the_operands_change_places_and_no_more(tmp_path: Path, model: Model) -> None:
    shards = encoded(numbered(tmp_path / "x", 3, 2), model)
    samples = ShardSamples(shards, shards.rows("train"), ragged=True)
    every, stats = torch.arange(6), model.prior.stats

    def batch(any_order: bool) -> Any:
        config = TrainConfig(operator="x", steps=1, batch_size=6, any_order=any_order)
        return make_batch(samples, every, config=config, stats=stats, gen=torch.Generator().manual_seed(1))

    plain, shuffled = batch(False), batch(True)
    assert not torch.equal(plain.condition.tokens, shuffled.condition.tokens)
    assert shuffled.condition.keep.sum(1).tolist() == [3, 2] * 3
    sums = [(b.condition.tokens * b.condition.keep[..., None]).sum(1) for b in (plain, shuffled)]
    torch.testing.assert_close(*sums)
    assert torch.equal(plain.target, shuffled.target)


def test_captions_alone_train_with_the_text_loss(tmp_path: Path, model: Model) -> None:
    def describe(i: int, row: dict[str, str]) -> None:
        del row["target_file_name"]
        row["caption"] = ("a red dog", "a blue dog", "a gold teapot")[i % 3]

    data = changed(write_examples(tmp_path / "described", roles=("object",)), describe)
    spec = TrainSpec.of({"data": str(data), "steps": 3, "batch_size": 8, "eval_every": 1})
    done = learn(spec, model, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["loss"] == "instruct" and done.operator.training.loss == "instruct" and done.held_out > 1


def test_without_a_validation_split_some_examples_are_held_out(tmp_path: Path, model: Model) -> None:
    shards = encoded(changed(write_examples(tmp_path / "x", count=30), lambda i, row: row.update(split="train")), model)
    train, held, notes = split_rows(shards, TrainSpec(data="x"), captions=False)
    assert len(train) == 27 and len(held) == 3 and not set(train) & set(held)
    assert "3 of the training examples are held out" in notes[0]
    assert split_rows(shards, TrainSpec(data="x"), captions=False) == (train, held, notes)
    few = encoded(changed(write_examples(tmp_path / "few", count=2), lambda i, row: row.update(split="train")), model)
    with pytest.raises(ConfigError, match="has 2 training examples and no validation split; at least 3 are needed"):
        split_rows(few, TrainSpec(data="x"), captions=False)
    assert some_of(train, 5, 0) == some_of(train, 5, 0) != some_of(train, 5, 1)


def test_the_nearest_operator_is_the_one_that_made_the_results(tmp_path: Path, model: Model) -> None:
    """Where a folder's results are an operator's own (by their embeddings), that operator is where to start."""
    shards = encoded(write_examples(tmp_path / "x"), model)
    samples = ShardSamples(shards, list(range(len(shards))))
    operator, every = model.operator("union"), torch.arange(len(shards))
    operands = samples.part(every).operands
    assert operands is not None
    truth = operator.sample(
        operator.encode([list(row) for row in operands]),
        [torch.Generator().manual_seed(i) for i in range(len(every))],
        steps=1,
        guidance=1.0,
    )
    samples.targets = lambda index: truth[index]  # type: ignore[method-assign]
    found = find_start("nearest", model, samples)
    assert found.name == "union" and set(found.tried) == {"texturing", "union", "scene", "instruct", "clothes"}
    assert found.tried["union"] == max(found.tried.values()) > sorted(found.tried.values())[-2]


def test_prepared_runs_take_spec_and_start_into_account(tmp_path: Path, model: Model) -> None:
    shards = encoded(write_examples(tmp_path / "x"), model)
    spec = TrainSpec.of({"data": str(tmp_path / "x"), "from": "scene", "guidance": 3.0, "sampling_steps": 7, "rank": 3})
    ready = prepare(spec, model, shards)
    assert (ready.start.name, ready.config.rank) == ("scene", 3)
    assert (ready.operator.guidance, ready.operator.steps) == (3.0, 7)
    assert [role.name for role in ready.operator.roles] == ["object", "texture"] and ready.operator.name == "x"


def test_figures_of_a_perfect_and_of_a_wrong_result() -> None:
    truth = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    perfect = figures(truth, -truth, truth, torch.ones(8))
    assert perfect["cosine"] == pytest.approx(1) and perfect["recall_at_1"] == perfect["beats_average"] == 1
    assert figures(-truth, truth, truth, torch.ones(8))["beats_average"] == 0
