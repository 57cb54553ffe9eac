"""Specs and operators: the table, operands checked, samples against the public pipeline's way."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import KandinskyV22PriorPipeline, UnCLIPScheduler
from torch.nn import functional as F

from pops.errors import CheckpointError, ConfigError, EmbeddingError, OperandError
from pops.operators.operator import Operator, TextPrior, sample
from pops.operators.spec import BUILTIN, OperatorSpec, Role, TrainingRecipe
from pops.prior.condition import Condition
from pops.prior.transformer import PriorModel
from pops.seeds import generator, generators
from pops.standardise import ClipStats
from pops.training.trainer import new_prior

DIM = 16


@pytest.fixture(scope="module")
def prior():
    stats = ClipStats(torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))
    return new_prior(stats, layers=2, heads=2, head_dim=12, seed=1)


@pytest.fixture
def texturing(prior):
    return Operator(BUILTIN["texturing"], prior)


def tokens(items, operands=2):
    return torch.randn(items, operands, DIM, generator=generator(0))


# -- specs -----------------------------------------------------------------------------------------


def test_the_table_is_the_papers():
    assert {s.name: s.guidance for s in BUILTIN.values()} == {
        "texturing": 8,
        "union": 8,
        "scene": 1,
        "instruct": 1,
        "clothes": 1,
    }
    assert [r.kind for r in BUILTIN["instruct"].roles] == ["image", "text"]
    assert BUILTIN["clothes"].arity == (1, 12) and BUILTIN["union"].arity == (2, 2)
    assert {s.name: (s.training.drop_each, s.training.drop_together) for s in BUILTIN.values()} == {
        "texturing": (0.25, 0),
        "union": (0, 0.2),
        "scene": (0, 0.1),
        "instruct": (0, 0.2),
        "clothes": (0, 0.2),
    }
    assert all(s.steps == 25 and s.summary for s in BUILTIN.values())


@pytest.mark.parametrize("spec", BUILTIN.values(), ids=str)
def test_specs_survive_json(spec):
    import json

    assert OperatorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_operands_are_checked():
    with pytest.raises(OperandError, match=r"texturing takes 2 operands \(object, texture\), got 1; write _"):
        BUILTIN["texturing"].validate(["image"])
    with pytest.raises(OperandError, match=r"instruct: operand 2 \(word\) must be a word, got an image"):
        BUILTIN["instruct"].validate(["image", "image"])
    with pytest.raises(OperandError, match=r"union: operand 1 \(image a\) must be an image, got words"):
        BUILTIN["union"].validate(["text", None])
    anything = OperatorSpec("mix", (Role("layout", "any"), Role("content", "any")))
    assert len(anything.validate(["image", "text"])) == 2
    with pytest.raises(OperandError, match=r"clothes takes 1 to 12 operands \(garment, \.\.\.\), got 13"):
        BUILTIN["clothes"].roles_for(13)
    assert len(BUILTIN["clothes"].validate(["image"] * 12)) == 12
    assert BUILTIN["instruct"].validate([None, None])[1].kind == "text"
    many = OperatorSpec("sum", (Role("a"), Role("b")), repeat=True)
    assert len(many.roles_for(5)) == 5
    with pytest.raises(OperandError, match="takes 2 or more operands"):
        many.roles_for(1)


def test_bad_specs_are_refused():
    for bad in (
        lambda: OperatorSpec("two words", (Role("a"),)),
        lambda: OperatorSpec("x", ()),
        lambda: OperatorSpec("x", (Role("a"),), most=3),
        lambda: OperatorSpec("x", (Role("a"),), steps=0),
        lambda: OperatorSpec("x", (Role("a"),), guidance=-1),
        lambda: Role("a", "sound"),  # type: ignore[arg-type]
    ):
        with pytest.raises(OperandError):
            bad()
    with pytest.raises(ConfigError, match=r"drop_each must be in \[0, 1\], got 2"):
        TrainingRecipe(drop_each=2)
    with pytest.raises(ConfigError, match="unknown loss 'l1'; choose from mse, instruct"):
        TrainingRecipe(loss="l1")
    anything: dict[str, Any] = {"name": "x", "roles": [{"name": "a", "kind": "any"}]}
    wrong: list[Any] = [{}, {"name": "x", "roles": [{"colour": 1}]}, {"name": "x", "roles": [], "speed": 1}, []]
    for data in [*wrong, anything]:
        with pytest.raises((CheckpointError, OperandError)):
            OperatorSpec.from_json(data)


def test_options_are_checked():
    BUILTIN["union"].check_options({"steps": 1000, "guidance": 0, "sampler": "ddim"})
    for options in ({"stepz": 3}, {"steps": 0}, {"steps": 2.5}, {"guidance": 101}, {"guidance": "x"}, {"sampler": "d"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            BUILTIN["union"].check_options(options)


# -- operands to slots -----------------------------------------------------------------------------


def test_operands_become_slots(texturing, prior):
    a, b = torch.randn(DIM), torch.randn(1, DIM)
    c = texturing.encode([[a, b], [a, None]])
    stats = prior.stats
    torch.testing.assert_close(c.tokens[0], (torch.stack([a, b[0]]) - stats.mean) / stats.std)
    assert c.keep is None and not c.tokens[1, 1].any() and torch.equal(c.tokens[1, 0], c.tokens[0, 0])


def test_words_follow_and_are_not_standardised(prior):
    instruct = Operator(BUILTIN["instruct"], prior)
    image, long, short = torch.randn(DIM), torch.randn(4, DIM), torch.randn(2, DIM)
    c = instruct.encode([[image, long], [image, short], [image, None]])
    assert torch.equal(c.tokens[0, 1:], long) and torch.equal(c.tokens[1, 1:3], short)
    assert c.keep is not None
    assert c.keep.sum(dim=1).tolist() == [
        5,
        3,
        2,
    ]  # the missing word is one zero token, unmasked
    assert Operator(BUILTIN["instruct"], prior).encode([[image, torch.randn(76, DIM)]]).tokens.shape[1] == 77
    with pytest.raises(OperandError, match=r"operand 2 \(word\): 77 tokens, at most 76 fit"):
        instruct.encode([[image, torch.randn(77, DIM)]])


def test_wrong_operands_say_so(texturing):
    with pytest.raises(OperandError, match="takes 2 operands"):
        texturing.encode([[None]])
    with pytest.raises(EmbeddingError, match=r"texturing: operand 1 \(object\) is 9 wide, the prior takes 16"):
        texturing.encode([[torch.zeros(9), None]])
    with pytest.raises(OperandError, match="must be one embedding, got 2"):
        texturing.encode([[torch.zeros(2, DIM), None]])
    with pytest.raises(OperandError, match="no operands at all"):
        texturing.encode([])


# -- samples ---------------------------------------------------------------------------------------


def public_way(prior, condition, seed, steps, guidance):
    """81 slots, both branches, scheduler.step: as the public implementation samples one item."""
    scheduler = UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)
    scheduler.set_timesteps(steps)
    gen, k = generator(seed), condition.shape[1]
    z = torch.randn(1, DIM, generator=gen)
    hidden = F.pad(torch.cat([torch.zeros_like(condition), condition]), (0, 0, 0, 77 - k))
    mask = (torch.arange(77) < k).expand(2, -1)
    for i, t in enumerate(scheduler.timesteps):
        out = prior.transformer(torch.cat([z, z]), t, torch.zeros(2, DIM), hidden, mask).predicted_image_embedding
        x0 = out[:1] + guidance * (out[1:] - out[:1])
        after = scheduler.timesteps[i + 1] if i + 1 < steps else None
        z = scheduler.step(x0, t, z, prev_timestep=after, generator=gen).prev_sample
    return prior.transformer.post_process_latents(z)


@pytest.mark.parametrize("operands", [1, 2, 5])
@pytest.mark.parametrize("full", [True, False])
def test_samples_are_the_public_ways(prior, operands, full):
    operator = Operator(BUILTIN["texturing"], prior)
    c = tokens(1, operands)
    with torch.no_grad():
        want = public_way(prior, c, 11, 25, 8.0)
    got = operator.sample(c, generators([11]), full=full)  # 25 steps and guidance 8 are the spec's
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(operator.sample(c, generators([11]), guidance=2.0), want, atol=1e-2)
    assert not torch.allclose(operator.sample(c, generators([11]), steps=5), want, atol=1e-2)


@pytest.mark.parametrize("guidance", [1.0, 8.0])
def test_a_batch_is_its_items(texturing, guidance):
    c, seeds = tokens(3), [4, 0, 9]
    batch = texturing.sample(c, generators(seeds), steps=6, guidance=guidance)
    assert batch.shape == (3, DIM) and batch.dtype == torch.float32 and not batch.requires_grad
    for i, seed in enumerate(seeds):
        alone = texturing.sample(c[i : i + 1], generators([seed]), steps=6, guidance=guidance)
        torch.testing.assert_close(batch[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_words_of_other_lengths_do_not_change_an_item(prior):
    instruct, gen = Operator(BUILTIN["instruct"], prior), generator(2)
    jobs = [[torch.randn(DIM, generator=gen), torch.randn(n, DIM, generator=gen)] for n in (2, 6, 3)]
    batch = instruct.sample(instruct.encode(jobs), generators([1, 2, 3]), steps=4, guidance=3.0)
    for i, job in enumerate(jobs):
        alone = instruct.sample(instruct.encode([job]), generators([i + 1]), steps=4, guidance=3.0)
        torch.testing.assert_close(batch[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_one_step_and_a_missing_operand(texturing):
    half = texturing.encode([[torch.randn(DIM), None]])
    a, b = (texturing.sample(half, generators([s]), steps=1, guidance=1.0) for s in (0, 1))
    assert a.isfinite().all() and not torch.allclose(a, b)
    assert torch.equal(a, texturing.sample(half, generators([0]), steps=1, guidance=1.0))


def test_sampling_checks(texturing):
    c = tokens(2)
    with pytest.raises(ConfigError, match=r"unknown sampler 'ancestrel' \(did you mean 'ancestral'\?\)"):
        texturing.sample(c, generators([0, 1]), sampler="ancestrel")
    with pytest.raises(ConfigError, match="2 items need as many generators, got 1"):
        texturing.sample(c, generators([0]))
    with pytest.raises(ConfigError, match="guidance must not be negative"):
        texturing.sample(c, generators([0, 1]), guidance=-1.0)
    with pytest.raises(ConfigError, match="steps must be between 1 and 1000, got 0"):
        texturing.sample(c, generators([0, 1]), steps=0)


def test_steps_are_told(texturing):
    seen = []
    texturing.sample(tokens(1), generators([0]), steps=3, on_step=lambda *s: seen.append(s))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def text_rows(pipe, prompt):
    batch = pipe.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = pipe.text_encoder(batch.input_ids)
    return out.last_hidden_state[0, : int(batch.attention_mask.sum())], out.text_embeds[0]


@pytest.mark.parametrize("full", [True, False])
def test_text_is_the_stock_pipelines(random_model, full):
    pipe = KandinskyV22PriorPipeline.from_pretrained(random_model)
    pipe.set_progress_bar_config(disable=True)
    want = pipe("a red tiger", num_inference_steps=6, guidance_scale=3.0, generator=generator(5)).image_embeds
    text = TextPrior(PriorModel.load(random_model))
    rows, embed = text_rows(pipe, "a red tiger")
    uncond = text_rows(pipe, "")
    task = text.task([rows], embed[None], uncond, guidance=3.0)
    got = sample([task], generators([5]), steps=6, full=full)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    other, other_embed = text_rows(pipe, "red")
    both = text.task([other, rows], torch.stack([other_embed, embed]), uncond, guidance=3.0)
    batch = sample([both], generators([1, 5]), steps=6, full=full)
    torch.testing.assert_close(batch[1:], got, rtol=1e-5, atol=1e-5)


def test_conditions_may_be_bare_tokens(texturing):
    c = tokens(1)
    a, b = (texturing.sample(x, generators([0]), steps=2) for x in (c, Condition(c)))
    assert torch.equal(a, b)


def test_a_missing_operand_has_defaults_of_its_own() -> None:
    spec = replace(BUILTIN["texturing"], steps=1, guidance=1.0, partial_steps=25, partial_guidance=1.5)
    assert spec.defaults(missing=False) == (1, 1.0, 1.0)
    assert spec.defaults(missing=True) == (25, 1.5, 1.0)
    assert BUILTIN["texturing"].defaults(missing=True) == BUILTIN["texturing"].defaults(missing=False) == (25, 8.0, 1.0)
    assert OperatorSpec.from_json(spec.to_json()) == spec
    with pytest.raises(OperandError, match="steps must be at least 1, got 0"):
        replace(spec, partial_steps=0)
