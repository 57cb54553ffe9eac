"""Training on embeddings: data, config, losses, and the loop that stops and goes on bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from pops.errors import CheckpointError, ConfigError, EmbeddingError, PopsError
from pops.operators.checkpoint import load_operator, put_on
from pops.operators.spec import BUILTIN
from pops.prior.condition import Condition
from pops.prior.transformer import PriorModel
from pops.standardise import ClipStats
from pops.training import losses
from pops.training.checkpoints import BEFORE, CHECKPOINT
from pops.training.config import TrainConfig
from pops.training.data import EmbeddingData, Order, make_batch, write_shard, write_tables
from pops.training.trainable import Trainable, weights_of
from pops.training.trainer import (
    export,
    load_trained,
    new_prior,
    save_prior,
    train,
    train_prior,
)

DIM, N = 16, 40


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pairs():
    a = randn(N, 2, DIM)
    return EmbeddingData(target=(a[:, 0] + a[:, 1].flip(1)) / 2, operands=a)


@pytest.fixture(scope="module")
def words():
    """Operands of one image and a word of 1 to 4 tokens, two phrasings each."""
    a, rows = randn(N, 1, DIM), torch.arange(2 * N).reshape(N, 2) % 6
    hidden = randn(6, 4, DIM, seed=1)
    length = torch.tensor([2, 4, 3, 1, 2, 4])
    return EmbeddingData(a[:, 0], a, rows, rows, hidden, length, randn(6, DIM, seed=2), torch.tensor([3, 3]))


@pytest.fixture(scope="module")
def captions(words):
    return EmbeddingData(
        words.target,
        None,
        words.words,
        words.text,
        words.word_hidden,
        words.word_length,
        words.text_embeds,
        words.empty,
    )


@pytest.fixture(scope="module")
def base(pairs):
    return new_prior(pairs.stats(), layers=2, heads=2, head_dim=8, seed=3)


def config(operator="texturing", **changes):
    return TrainConfig.of(operator, **{"steps": 4, "batch_size": 8, "warmup": 0, "log_every": 1, **changes})


def batch_of(data, base, cfg, size=8, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return make_batch(data, torch.arange(size) % len(data), config=cfg, stats=base.stats, gen=gen)


# -- data ------------------------------------------------------------------------------------------


def test_folder_round_trip(tmp_path, words):
    half = N // 2
    for i, rows in enumerate((slice(0, half), slice(half, N))):
        write_shard(
            tmp_path / f"{i}.safetensors",
            target=words.target[rows],
            operands=words.operands[rows],
            words=words.words[rows],
            text=words.text[rows],
        )
    hidden = [h[:n] for h, n in zip(words.word_hidden, words.word_length, strict=True)]
    write_tables(tmp_path, word_hidden=hidden, text_embeds=words.text_embeds, empty=(3, 3), pool=randn(5, DIM))
    data = EmbeddingData.load(tmp_path)
    assert data.pool is not None and data.words is not None and data.word_length is not None
    assert data.empty is not None and data.word_hidden is not None
    assert words.words is not None and words.word_length is not None
    assert len(data) == N and data.target.dtype == torch.float16 and data.pool.shape == (5, DIM)
    assert words.operands is not None and data.operands is not None
    assert torch.equal(data.operands, words.operands.half()) and torch.equal(data.words, words.words)
    assert torch.equal(data.word_length, words.word_length) and data.empty.tolist() == [3, 3]
    assert not data.word_hidden[3, 1:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.full((3, DIM), float("nan"))}, r"b\.safetensors: 'target' row 0 is not finite"),
        ({"operands": torch.zeros(3, 2, 9)}, r"b\.safetensors: 'operands' are 9 wide"),
        ({"operands": torch.zeros(2, 2, DIM)}, r"'operands' has 2 rows, 'target' has 3"),
        ({"operands": torch.zeros(3, 1, DIM)}, r"does not fit that of a\.safetensors"),
        ({"words": torch.tensor([0, 6, 0])}, r"'words' row 1 points outside its table of 6"),
        ({"text": torch.zeros(3, dtype=torch.int64)}, r"'text' row 0 points outside its table of 0"),
        ({"target": torch.zeros(0, DIM)}, "holds no samples"),
        ({"target": None}, "no 'target'"),
        ({"surprise": torch.zeros(3)}, "unknown tensor surprise"),
    ],
)
def test_broken_records_are_named(tmp_path, change, message):
    good = {
        "target": torch.zeros(3, DIM),
        "operands": torch.zeros(3, 2, DIM),
        "words": torch.tensor([0, 5, 1]),
    }
    write_tables(tmp_path, word_hidden=list(randn(6, 2, DIM)))
    write_shard(tmp_path / "a.safetensors", **good)
    assert len(EmbeddingData.load(tmp_path)) == 3
    broken = {k: v for k, v in {**good, **change}.items() if v is not None}
    save_file(broken, tmp_path / "b.safetensors")
    with pytest.raises(EmbeddingError, match=message):
        EmbeddingData.load(tmp_path)


def test_broken_row_is_the_right_one(tmp_path):
    target = torch.zeros(5, DIM)
    target[3, 2] = float("inf")
    write_shard(tmp_path / "x.safetensors", target=target)
    with pytest.raises(EmbeddingError, match=r"x\.safetensors: 'target' row 3"):
        EmbeddingData.load(tmp_path)


def test_unreadable_and_absent_shards(tmp_path):
    with pytest.raises(EmbeddingError, match="no shards"):
        EmbeddingData.load(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"junk")
    with pytest.raises(EmbeddingError, match=r"x\.safetensors cannot be read"):
        EmbeddingData.load(tmp_path)


def test_order_is_whole_epochs_and_a_function_of_the_step():
    order = Order(10, 4, seed=1)
    rows = torch.cat([order.rows(s) for s in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert torch.equal(Order(10, 4, seed=1).rows(3), order.rows(3))
    assert not torch.equal(Order(10, 4, seed=2).rows(0), order.rows(0))
    assert sorted(Order(3, 7, 0).rows(0)[:6].tolist()) == [0, 0, 1, 1, 2, 2]


def test_batch_standardises(pairs, base):
    batch = batch_of(pairs, base, config(drop_each=0, random_share=0))
    std, mean = base.stats.std, base.stats.mean
    torch.testing.assert_close(batch.target, (pairs.target[:8] - mean) / std)
    torch.testing.assert_close(batch.condition.tokens, (pairs.operands[:8] - mean) / std)
    assert batch.condition.keep is None and batch.condition.proj is None and batch.text is None


def test_dropout_rates(pairs, base):
    def dropped(**changes):
        tokens = batch_of(pairs, base, config(**{"drop_each": 0, "random_share": 0, **changes}), 8000).condition.tokens
        return (tokens == 0).all(dim=2)

    each = dropped(drop_each=0.25)
    assert each.float().mean(dim=0).tolist() == pytest.approx([0.25, 0.25], abs=0.02)
    assert float(each.all(dim=1).float().mean()) == pytest.approx(0.0625, abs=0.01)
    both = dropped(drop_together=0.2)
    assert torch.equal(both[:, 0], both[:, 1]) and float(both.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert not dropped().any()


def test_random_images_are_targets_without_operands(pairs, base):
    pool = randn(6, DIM, seed=9)
    data = EmbeddingData(pairs.target, pairs.operands, pool=pool)
    cfg = config(drop_each=0, random_share=0.2, random_keeps_first=0.5)
    batch = batch_of(data, base, cfg, 8000)
    images = (pool - base.stats.mean) / base.stats.std
    chosen = (batch.target[:, None] == images).all(dim=2).any(dim=1)
    assert float(chosen.float().mean()) == pytest.approx(0.2, abs=0.02)
    tokens = batch.condition.tokens
    assert not tokens[chosen, 1].any() and bool(tokens[~chosen].any(dim=2).all())
    kept = tokens[chosen, 0].any(dim=1)
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=0.04)
    assert torch.equal(tokens[chosen, 0][kept], batch.target[chosen][kept])


def test_operand_noise(pairs, base):
    plain, noisy = (
        batch_of(pairs, base, config(drop_each=0, random_share=0, operand_noise=s), 4000) for s in (0.0, 0.5)
    )
    assert float((noisy.condition.tokens - plain.condition.tokens).std()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(noisy.target, plain.target)


def test_words_follow_the_image(words, base):
    cfg = config("instruct", drop_together=0)
    batch = batch_of(words, base, cfg, 40)
    c = batch.condition
    assert c.tokens.shape == (40, 5, DIM) and c.proj is None and bool(c.keep[:, 0].all())
    choice = (batch.text[:, None] == words.text_embeds[words.text]).all(dim=2)
    assert bool((choice.sum(dim=1) == 1).all()) and 8 < int(choice[:, 0].sum()) < 32
    for i in range(40):
        word = words.words[i, 1 - int(choice[i, 0])]
        n = int(words.word_length[word])
        assert torch.equal(c.tokens[i, 1 : n + 1], words.word_hidden[word, :n])
        assert c.keep[i].tolist() == [True] * (n + 1) + [False] * (4 - n) and not c.tokens[i, n + 1 :].any()
    none = batch_of(words, base, config("instruct", drop_together=1.0), 40).condition
    assert not none.tokens.any() and torch.equal(none.keep.sum(), c.keep.sum())  # zero tokens stay, unmasked


def test_captions_become_empty_ones(captions, base):
    cfg = config("prior", drop_together=0.5)
    c = batch_of(captions, base, cfg, 4000).condition
    empty = (c.proj == captions.text_embeds[3]).all(dim=1)
    short = c.keep.sum(dim=1) == 1  # of the table, only "" (row 3) is one token long
    assert torch.equal(empty, short) and float(empty.float().mean()) == pytest.approx(0.5 + 0.5 / 6, abs=0.03)
    assert torch.equal(c.tokens[empty][0, 0], captions.word_hidden[3, 0])


# -- config and losses -----------------------------------------------------------------------------


def test_config_comes_from_the_spec_and_back():
    cfg = TrainConfig.of("texturing", lr=1e-3)
    assert (cfg.drop_each, cfg.drop_together, cfg.random_share, cfg.random_keeps_first) == (0.25, 0, 0.2, 0.5)
    assert (TrainConfig.of("union").drop_together, TrainConfig.of("scene").drop_together) == (0.2, 0.1)
    assert TrainConfig.of("instruct").loss == "instruct" and TrainConfig.of("prior").drop_together == 0.1
    assert TrainConfig.from_json(cfg.to_json()) == cfg
    assert cfg.differences(cfg.changed(lr=2e-3, save_every=7)) == ["lr: 0.001, not 0.002"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"schedule": "cosin"}, r"did you mean 'cosine'\?"),
        ({"drop_each": 1.5}, r"drop_each must be in \[0, 1\], got 1.5"),
        ({"ema": 1.0}, "ema"),
        ({"rank": -1}, "rank must not be negative"),
        ({"operator": "prior", "rank": 4}, "rank must be 0"),
        ({"operator": "prior", "drop_each": 0.1}, "no operands"),
    ],
)
def test_config_checks(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


def test_config_refuses_other_text():
    with pytest.raises(ConfigError, match="unknown field speed"):
        TrainConfig.from_json('{"speed": 1}')
    with pytest.raises(ConfigError, match="not a training config"):
        TrainConfig.from_json("{")
    with pytest.raises(ConfigError, match="did you mean 'union'"):
        TrainConfig.of("onion")


def test_schedules():
    def at(schedule, *steps, **kw):
        cfg = TrainConfig(steps=100, lr=1.0, schedule=schedule, **kw)
        return [cfg.lr_at(s) for s in steps]

    assert at("constant", 0, 4, 50, warmup=10) == pytest.approx([0.1, 0.5, 1.0])
    assert at("cosine", 0, 50, 99, warmup=0) == pytest.approx([1.0, 0.5, 0.0002], abs=1e-4)
    assert at("flat", 0, 60, 80, 99, warmup=0, decay_share=0.4) == pytest.approx([1.0, 1.0, 0.5, 0.025])


@pytest.mark.parametrize("items", [1, 3])
def test_losses_are_per_item(items):
    stats = ClipStats(randn(DIM), randn(DIM, seed=1).abs() + 0.5)
    x0, z, text = (randn(items, DIM, seed=s) for s in (2, 3, 4))
    assert losses.mse(x0, z).shape == (items,)
    whole = losses.instruct(x0, z, text, stats, weight=7.0)
    for i in range(items):
        cos = F.cosine_similarity(x0[i] * stats.std + stats.mean, text[i], dim=0)
        torch.testing.assert_close(whole[i], F.mse_loss(x0[i], z[i]) + 7.0 * (1 - cos))


# -- the loop --------------------------------------------------------------------------------------

RUNS = [
    ("texturing", {}),
    ("texturing", {"rank": 2, "schedule": "flat", "adapt_time": True}),
    ("instruct", {"rank": 2, "weight_decay": 0.1, "precision": "bf16"}),
]


@pytest.mark.parametrize(("operator", "changes"), RUNS)
def test_stopping_and_resuming_changes_nothing(tmp_path, operator, changes, request, base):
    data = request.getfixturevalue("words" if operator == "instruct" else "pairs")
    cfg = config(operator, **changes)
    straight = train(cfg, data, base, tmp_path / "a")
    half = train(cfg, data, base, tmp_path / "b", stop_at=2)
    assert half.step == 2 and any(not torch.equal(half.weights[k], v) for k, v in straight.weights.items())
    torch.rand(3)  # the program's other random numbers do not count
    resumed = train(cfg, data, base, tmp_path / "b")
    assert resumed.step == 4 and set(resumed.weights) == set(straight.weights)
    for folder in ("a", "b"):
        rows = [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
    one, two = (load_file(tmp_path / folder / CHECKPOINT) for folder in ("a", "b"))
    assert set(one) == set(two) and {k.split("/")[0] for k in one} == {"param", "ema", "adam"}
    for name, value in one.items():
        assert torch.equal(two[name], value), name
    done = train(cfg, data, base, tmp_path / "b")
    assert all(torch.equal(done.weights[k], v) for k, v in straight.weights.items())
    loaded = load_trained(tmp_path / "b", base)
    assert loaded.config == cfg and all(torch.equal(loaded.weights[k], v) for k, v in straight.weights.items())


@pytest.mark.parametrize("rank", [0, 4])
def test_training_learns(tmp_path, pairs, base, rank):
    seen: list[Mapping[str, Any]] = []
    cfg = config(steps=150, batch_size=32, lr=5e-3, rank=rank, drop_each=0, random_share=0, log_every=25)
    train(cfg, pairs, base, tmp_path, on_log=seen.append)
    assert len(seen) == 6 and seen[-1]["loss"] < 0.7 * seen[0]["loss"]


def test_low_rank_is_the_merged_weights(base, pairs):
    cfg = config(rank=3)
    model = Trainable(base, cfg)
    for p in model.trained().values():
        p.data.add_(0.1 * randn(*p.shape))
    names = set(model.trained())
    assert {"proj_in.weight", "positional_embedding", "prd_embedding"} <= names
    assert "transformer_blocks.0.attn1.to_q.down" in names and "transformer_blocks.1.ff.net.2.up" in names
    assert not any(n.startswith(("time_embedding", "clip_", "embedding_proj.weight")) for n in names)

    whole = put_on(base, weights_of(model.trained(), base, cfg))
    z, t = randn(3, DIM), torch.tensor([3, 500, 999])
    tokens = pairs.operands[:3]
    torch.testing.assert_close(whole.predict_slots(z, t, tokens), model(z, t, Condition(tokens)), rtol=1e-4, atol=1e-5)


def test_average_follows_slowly(tmp_path, pairs, base):
    train(config(steps=1), pairs, base, tmp_path)
    state = load_file(tmp_path / CHECKPOINT)
    start, now, mean = (
        base.transformer.proj_in.weight,
        state["param/proj_in.weight"],
        state["ema/proj_in.weight"],
    )
    torch.testing.assert_close(mean, 0.1 * start + 0.9 * now)  # decay of step 0: (1 + 0) / (10 + 0)


def test_every_field_has_an_effect(tmp_path, words, base):
    """No switch is wired to nothing: each field, off its default, changes the weights or the log."""
    plain = config("instruct", loss="instruct", schedule="flat", decay_share=0.5, random_share=0.3, warmup=1)
    other = {
        "steps": 5,
        "batch_size": 9,
        "lr": 1e-3,
        "schedule": "cosine",
        "warmup": 3,
        "decay_share": 0.9,
        "weight_decay": 0.5,
        "grad_clip": 1e-3,
        "ema": 0.05,
        "seed": 1,
        "precision": "bf16",
        "rank": 1,
        "loss": "mse",
        "text_weight": 3.0,
        "cosine_weight": 1.0,
        "contrastive_weight": 1.0,
        "pure_noise": 0.9,
        "blocks": 1,
        "drop_each": 0.5,
        "drop_together": 0.9,
        "random_share": 0.9,
        "random_keeps_first": 1.0,
        "operand_noise": 1.0,
        "blend_share": 1.0,
    }
    elsewhere = {
        "operator",
        "adapt_time",
        "save_every",
        "log_every",
        "accumulate",
        "eval_every",
        "patience",
        "any_order",
    }
    assert set(other) | elsewhere == {f.name for f in fields(TrainConfig)}
    want = train(plain, words, base, tmp_path / "plain").prior.transformer.state_dict()
    for name, value in other.items():
        got = train(plain.changed(**{name: value}), words, base, tmp_path / name).prior.transformer.state_dict()
        assert any(not torch.equal(got[k], want[k]) for k in want), name
    adapted = Trainable(base, plain.changed(rank=1, adapt_time=True)).trained()
    assert "time_embedding.linear_1.weight" in adapted
    seen: list[Mapping[str, Any]] = []
    train(plain.changed(log_every=3, save_every=1), words, base, tmp_path / "log", on_log=seen.append)
    assert [row["step"] for row in seen] == [3, 4]


def test_save_every_survives_a_crash(tmp_path, pairs, base):
    def crash(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(save_every=3), pairs, base, tmp_path / "a", on_log=crash)
    assert load_trained(tmp_path / "a", base).step == 3
    resumed, straight = (train(config(save_every=3), pairs, base, tmp_path / x) for x in "ab")
    assert all(torch.equal(resumed.weights[k], v) for k, v in straight.weights.items())
    assert len((tmp_path / "a/log.jsonl").read_text().splitlines()) == 4
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [BEFORE, CHECKPOINT, "config.json", "log.jsonl"]


def test_another_run_is_not_continued(tmp_path, pairs, words, base):
    train(config(), pairs, base, tmp_path, stop_at=1)
    with pytest.raises(ConfigError, match=r"another run \(lr: 0.1, not 0.0005\)"):
        train(config(lr=0.1), pairs, base, tmp_path)
    with pytest.raises(ConfigError, match="data: "):
        train(config(), EmbeddingData(pairs.target + 1, pairs.operands), base, tmp_path)
    other = new_prior(pairs.stats(), layers=2, heads=2, head_dim=8, seed=4)
    with pytest.raises(ConfigError, match="base: "):
        train(config(), pairs, other, tmp_path)
    with pytest.raises(CheckpointError, match="another base prior"):
        load_trained(tmp_path, other)
    assert train(config(lr=0.1), pairs, base, tmp_path, resume=False).step == 4
    (tmp_path / CHECKPOINT).write_bytes(b"junk")
    (tmp_path / BEFORE).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(config(), pairs, base, tmp_path)


def test_divergence_is_told(tmp_path, pairs, base):
    with pytest.raises(PopsError, match="the loss is NaN or infinite at step"):
        train(config(lr=1e30, grad_clip=0.0, steps=6), pairs, base, tmp_path)


def test_what_has_diverged_is_never_saved(tmp_path, pairs, base):
    broken = config(lr=1e30, grad_clip=0.0, steps=9, save_every=1, log_every=9)
    with pytest.raises(PopsError, match="start again"):
        train(broken, pairs, base, tmp_path)
    state = load_file(tmp_path / CHECKPOINT)
    assert all(bool(value.isfinite().all()) for name, value in state.items() if name.startswith("param/"))


def test_checkpoint_tensors_that_do_not_fit_are_named(tmp_path, pairs, base):
    train(config(), pairs, base, tmp_path, stop_at=1)
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        meta = file.metadata()
    state = load_file(tmp_path / CHECKPOINT)
    state["param/new"] = state.pop("param/proj_in.bias")
    state["ema/proj_in.weight"] = state["ema/proj_in.weight"][:1].contiguous()  # it would broadcast
    save_file(state, tmp_path / CHECKPOINT, metadata=meta)
    with pytest.raises(CheckpointError, match=r"missing: param/proj_in.bias; surplus: param/new; misshaped: ema/proj"):
        train(config(), pairs, base, tmp_path)


def test_data_must_fit(tmp_path, pairs, words, captions, base):
    with pytest.raises(ConfigError, match="needs 'text'"):
        train(config("instruct"), pairs, base, tmp_path)
    with pytest.raises(ConfigError, match="trained on captions"):
        train(config("prior"), pairs, base, tmp_path)
    with pytest.raises(ConfigError, match="9 wide, the base prior takes 16"):
        train(config(), EmbeddingData(torch.zeros(3, 9), torch.zeros(3, 2, 9)), base, tmp_path)
    with pytest.raises(ConfigError, match="fill 78 condition slots"):
        train(config(), EmbeddingData(torch.zeros(3, DIM), torch.zeros(3, 78, DIM)), base, tmp_path)
    with pytest.raises(ConfigError, match="fill 0 condition slots"):
        train(config(), EmbeddingData(torch.zeros(3, DIM)), base, tmp_path)


def test_base_prior_then_operator_then_folder(tmp_path, captions, pairs):
    """The whole recipe, small: captions -> base prior -> operator -> folder -> operator again."""
    made = train_prior(config("prior"), captions, tmp_path / "prior-run", layers=2, heads=2, head_dim=8)
    half = train_prior(config("prior"), captions, tmp_path / "half", layers=2, heads=2, head_dim=8, stop_at=2)
    again = train_prior(config("prior"), captions, tmp_path / "half", layers=2, heads=2, head_dim=8)
    assert half.step == 2 and all(torch.equal(again.weights[k], v) for k, v in made.weights.items())
    torch.testing.assert_close(made.prior.stats.mean, captions.target.mean(dim=0))
    save_prior(made.prior, tmp_path / "model")
    base = PriorModel.load(tmp_path / "model")
    for rank in (0, 2):
        trained = train(config("union", rank=rank), pairs, base, tmp_path / f"run{rank}")
        folder = export(trained, tmp_path / f"op{rank}", base=base, space="test-16")
        operator = load_operator(folder, base, space="test-16")
        assert operator.spec == BUILTIN["union"]
        assert (folder / "adapter.safetensors").exists() == (rank > 0)
        z, t, tokens = randn(2, DIM), torch.tensor([10, 900]), randn(2, 2, DIM)
        want, got = (p.predict_x0(z, t, tokens) for p in (trained.prior, operator.prior))
        torch.testing.assert_close(got, want, rtol=2e-2, atol=5e-3)
    with pytest.raises(ConfigError, match="trains operator 'prior'"):
        train_prior(config(), pairs, tmp_path / "x")


@pytest.mark.parametrize("cut", [0, 7, 200])
@pytest.mark.parametrize("name", [CHECKPOINT, BEFORE, "config.json", "log.jsonl"])
def test_a_run_whose_file_is_cut_off_loses_one_interval_at_most(tmp_path, pairs, base, name, cut, caplog):
    """As when the power fails: the newest file is there by name, and its content is not."""
    whole = train(config(save_every=1), pairs, base, tmp_path / "whole")
    train(config(save_every=1), pairs, base, tmp_path / "cut", stop_at=3)
    path = tmp_path / "cut" / name
    path.write_bytes(path.read_bytes()[:cut])
    assert load_trained(tmp_path / "cut", base).step == (2 if name == CHECKPOINT else 3)
    again = train(config(save_every=1), pairs, base, tmp_path / "cut")
    assert again.step == 4 and all(torch.equal(again.weights[k], v) for k, v in whole.weights.items())
    assert load_trained(tmp_path / "cut", base).step == 4


def test_settings_of_a_wrong_type_are_named(tmp_path):
    for changes, says in (
        ({"steps": 3.5}, "steps must be a whole number, got 3.5"),
        ({"lr": "fast"}, "lr must be a number, got fast"),
        ({"lr": float("nan")}, "lr must be finite"),
        ({"adapt_time": 1}, "adapt_time must be true or false"),
        ({"schedule": None}, "schedule must be a name"),
    ):
        with pytest.raises(ConfigError, match=says):
            config(**changes)
    for text in ("[]", "[" * 5000, "{", '{"steps": ' + "9" * 5000 + "}", "3"):
        with pytest.raises(ConfigError, match="is not a training config"):
            TrainConfig.from_json(text)
