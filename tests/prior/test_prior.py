"""The prior's forward: against diffusers' own, and the slots-only way against the full one."""

import json
from functools import partial

import pytest
import torch
from diffusers import PriorTransformer
from safetensors.torch import load_file, save_file

from pops.errors import CheckpointError, ModelError, PopsError
from pops.prior.condition import Condition
from pops.prior.transformer import PriorModel
from pops.standardise import ClipStats
from pops.training.trainer import new_prior, save_prior

DIM = 16


def make_prior(seed=0, layers=3, **changes):
    gen = torch.Generator().manual_seed(seed)
    stats = ClipStats(torch.randn(DIM, generator=gen), torch.rand(DIM, generator=gen) + 0.5)
    prior = new_prior(stats, layers=layers, heads=2, head_dim=12, seed=seed, **changes)
    for p in prior.transformer.parameters():  # large enough for every part to matter
        p.data.add_(0.2 * torch.randn(p.shape, generator=gen))
    return prior


def request(items, operands, seed=0):
    gen = torch.Generator().manual_seed(seed)
    z, tokens = torch.randn(items, DIM, generator=gen), torch.randn(items, operands, DIM, generator=gen)
    return z, torch.randint(1000, (items,), generator=gen), tokens


def ragged(items, operands, seed=0):
    z, t, tokens = request(items, operands, seed)
    keep = torch.arange(operands)[None] < torch.tensor([operands, 1, 2])[:items, None]
    return z, t, Condition(tokens, keep, torch.randn(items, DIM))


def test_full_forward_is_diffusers_own():
    prior = make_prior()
    z, t, tokens = request(3, 2)
    hidden, mask = torch.zeros(3, 77, DIM), torch.zeros(3, 77, dtype=torch.bool)
    hidden[:, :2], mask[:, :2] = tokens, True
    with torch.no_grad():
        out = prior.transformer(z, t, torch.zeros(3, DIM), hidden, mask).predicted_image_embedding
        assert torch.equal(prior.predict_x0(z, t, tokens), out)


def test_full_forward_masks_padding_and_takes_text():
    prior = make_prior()
    z, t, c = ragged(3, 4)
    hidden, mask = torch.zeros(3, 77, DIM), torch.zeros(3, 77, dtype=torch.bool)
    hidden[:, :4], mask[:, :4] = c.tokens, c.keep
    with torch.no_grad():
        out = prior.transformer(z, t, c.proj, hidden, mask).predicted_image_embedding
        assert torch.equal(prior.predict_x0(z, t, c), out)
        loud = Condition(torch.where(c.keep[..., None], c.tokens, 1e3), c.keep, c.proj)
        torch.testing.assert_close(prior.predict_x0(z, t, loud), out, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("operands", [0, 1, 2, 12, 77])
@pytest.mark.parametrize("items", [1, 3])
def test_slots_equal_full_forward(operands, items):
    prior = make_prior()
    request_ = request(items, operands)
    with torch.no_grad():
        full, slots = prior.predict_x0(*request_), prior.predict_slots(*request_)
    assert full.abs().max() > 0.1
    torch.testing.assert_close(slots, full, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"norm_in_type": "layer", "embedding_proj_norm_type": "layer"}])
def test_slots_equal_full_forward_with_padding_and_text(options):
    torch.manual_seed(0)
    prior = PriorModel(PriorTransformer(2, 12, 2, DIM, **options).eval())
    z, t, c = ragged(3, 5)
    with torch.no_grad():
        torch.testing.assert_close(prior.predict_slots(z, t, c), prior.predict_x0(z, t, c), rtol=1e-5, atol=2e-6)
        other = Condition(c.tokens, c.keep, c.proj.flip(1))
        assert not torch.allclose(prior.predict_slots(z, t, other), prior.predict_slots(z, t, c), atol=1e-3)


def test_gradients_equal_full_forward():
    prior = make_prior()
    z, t, c = ragged(3, 4)
    named = {n: p for n, p in prior.transformer.named_parameters() if p.requires_grad}
    assert "clip_mean" not in named and "clip_std" not in named
    grads = []
    for predict in (prior.predict_x0, prior.predict_slots):
        tokens = c.tokens.clone().requires_grad_(True)
        loss = predict(z, t, Condition(tokens, c.keep, c.proj)).square().sum()
        grads.append(torch.autograd.grad(loss, [tokens, *named.values()]))
    largest = max(float(g.abs().max()) for g in grads[0])
    for name, full, slots in zip(["tokens", *named], *grads, strict=True):
        scale = max(float(full.abs().max()), 1e-2 * largest)  # a key's bias has no gradient but rounding
        torch.testing.assert_close(slots, full, rtol=1e-5, atol=1e-5 * scale, msg=partial("{}: {}".format, name))


def test_order_and_zero_operands_matter():
    prior = make_prior()
    z, t, tokens = request(1, 2)
    with torch.no_grad():
        there, swapped, missing, shorter = (
            prior.predict_x0(z, t, x)
            for x in (tokens, tokens.flip(1), tokens * torch.tensor([1.0, 0.0])[:, None], tokens[:, :1])
        )
    assert not torch.allclose(there, swapped, atol=1e-3)
    assert not torch.allclose(missing, shorter, atol=1e-4)  # a missing operand stays, unmasked


def test_bad_conditions_say_so():
    prior = make_prior()
    z, t, _ = request(1, 1)
    with pytest.raises(ModelError, match="9 wide, this prior takes 16"):
        prior.predict_x0(z, t, torch.zeros(1, 1, 9))
    with pytest.raises(ModelError, match="78 condition tokens"):
        prior.predict_slots(z, t, torch.zeros(1, 78, DIM))
    with pytest.raises(ModelError, match="unCLIP form"):
        PriorModel(PriorTransformer(2, 4, 1, DIM, added_emb_type=None, additional_embeddings=3))


def test_conditions_join_with_padding():
    a, b = Condition(torch.ones(1, 2, DIM), None, torch.ones(1, DIM)), Condition(torch.ones(2, 3, DIM))
    both = Condition.cat([a, b])
    assert both.keep is not None and both.proj is not None
    assert both.tokens.shape == (3, 3, DIM) and both.keep.tolist() == [[True, True, False]] + [[True] * 3] * 2
    assert both.proj.sum(dim=1).tolist() == [DIM, 0, 0]
    assert Condition.cat([b, b]).keep is None and Condition.cat([b, b]).proj is None
    assert len(a.expand(4)) == 4 and not a.zeros().tokens.any() and a.zeros().proj is None
    with pytest.raises(PopsError):
        b.expand(2)


def test_load_from_folder_is_stock_layout(tmp_path):
    prior = make_prior()
    save_prior(prior, tmp_path)
    loaded = PriorModel.load(tmp_path)
    assert (loaded.dim, loaded.slots, loaded.fingerprint) == (DIM, 77, prior.fingerprint)
    assert PriorModel.load(tmp_path / "prior", dtype=torch.bfloat16).fingerprint == prior.fingerprint
    assert make_prior(seed=1).fingerprint != prior.fingerprint
    torch.testing.assert_close(loaded.stats.mean, prior.stats.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(loaded.stats.std, prior.stats.std, rtol=1e-3, atol=1e-3)
    stock = PriorTransformer.from_pretrained(tmp_path / "prior").eval()
    z, t, tokens = request(1, 2)
    hidden, mask = torch.zeros(1, 77, DIM), torch.arange(77)[None] < 2
    hidden[:, :2] = tokens
    with torch.no_grad():
        out = stock(z, t, torch.zeros(1, DIM), hidden, mask).predicted_image_embedding
        torch.testing.assert_close(loaded.predict_slots(z, t, tokens), out, rtol=1e-5, atol=2e-6)
    assert json.loads((tmp_path / "scheduler/scheduler_config.json").read_text())["prediction_type"] == "sample"


def test_parts_may_lie_anywhere(tmp_path):
    save_prior(make_prior(clip=0.5), tmp_path)
    prior = (tmp_path / "prior").rename(tmp_path / "first")
    scheduler = (tmp_path / "scheduler").rename(tmp_path / "second")
    assert PriorModel.load_parts(prior, scheduler).scheduler.clip == 0.5
    scheduler.rename(tmp_path / "scheduler")
    assert PriorModel.load_parts(prior, None).scheduler.clip == 5.0, "the one beside it belongs to another network"
    assert PriorModel.load(prior).scheduler.clip == 0.5


def test_load_names_what_is_wrong(tmp_path):
    with pytest.raises(ModelError, match="no prior in"):
        PriorModel.load(tmp_path)
    save_prior(make_prior(), tmp_path)
    config = tmp_path / "prior/config.json"
    whole = config.read_text()
    for text, says in (("{", "cannot be read"), ("[]", "no JSON object"), ('{"num_layers": "x"}', "must be a number")):
        config.write_text(text)
        with pytest.raises(ModelError, match=says):
            PriorModel.load(tmp_path)
    config.write_text(whole)
    (tmp_path / "prior/diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be read"):
        PriorModel.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("proj_in.bias"), r"missing: proj_in\.bias"),
        (lambda t: t.pop("clip_std"), "missing: clip_std"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "surplus: extra"),
        (lambda t: t.update({"proj_in.bias": torch.zeros(3)}), r"proj_in\.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    save_prior(make_prior(), tmp_path)
    path = tmp_path / "prior/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises((CheckpointError, ModelError), match=message):
        PriorModel.load(tmp_path)


def test_statistics_are_never_rounded(tmp_path):
    save_prior(make_prior(), tmp_path)
    exact = PriorModel.load(tmp_path).stats
    half = PriorModel.load(tmp_path, dtype=torch.bfloat16)
    for model in (half, half.with_weights({"proj_in.bias": half.transformer.proj_in.bias.detach() + 1})):
        assert model.dtype == torch.bfloat16
        assert torch.equal(model.stats.mean, exact.mean) and torch.equal(model.stats.std, exact.std)
    other = half.with_weights({"clip_mean": torch.ones(1, DIM)})
    assert torch.equal(other.stats.mean, torch.ones(DIM))


def test_half_precision_runs():
    prior = make_prior()
    z, t, tokens = request(2, 2)
    with torch.no_grad():
        want = prior.predict_x0(z, t, tokens)
        half = PriorModel.load(prior.transformer, dtype=torch.bfloat16).predict_slots(z, t, tokens)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), want, rtol=0.1, atol=0.1)
