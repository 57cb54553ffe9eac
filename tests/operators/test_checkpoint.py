"""Operator folders: what is written is read again, and what does not fit is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pops.errors import CheckpointError, ConfigError, SpaceError
from pops.loading.manifest import write_manifest
from pops.operators.checkpoint import load_operator, load_spec, put_on, save_operator
from pops.operators.spec import BUILTIN, OperatorSpec, Role
from pops.prior.transformer import FROZEN
from pops.seeds import generator
from pops.standardise import ClipStats
from pops.training.trainer import new_prior

DIM, WIDTH = 16, 24
Q = "transformer_blocks.1.attn1.to_q.weight"


@pytest.fixture(scope="module")
def base():
    return new_prior(ClipStats(torch.zeros(DIM), torch.full((DIM,), 2.0)), layers=2, heads=2, head_dim=12, seed=1)


@pytest.fixture
def adapter():
    gen = generator(0)
    return {
        f"{Q}.down": torch.randn(3, WIDTH, generator=gen) / 4,
        f"{Q}.up": torch.randn(WIDTH, 3, generator=gen) / 4,
        "proj_in.bias.delta": torch.randn(WIDTH, generator=gen),
    }


@pytest.fixture
def folder(tmp_path, base, adapter):
    return save_operator(tmp_path / "op", BUILTIN["union"], adapter, base=base, space="s", provenance={"steps": 7})


def rewrite(folder, change, name="adapter.safetensors"):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)
    write_manifest(folder)


def test_adapter_is_merged(base, adapter, folder):
    assert sorted(p.name for p in folder.iterdir()) == ["adapter.safetensors", "manifest.json", "operator.json"]
    operator = load_operator(folder, base, space="s")
    assert operator.spec == BUILTIN["union"] == load_spec(folder)
    own, got = base.transformer.state_dict(), operator.prior.transformer.state_dict()
    half = {k: v.half().float() for k, v in adapter.items()}
    torch.testing.assert_close(got[Q], own[Q] + half[f"{Q}.up"] @ half[f"{Q}.down"])
    torch.testing.assert_close(got["proj_in.bias"], own["proj_in.bias"] + half["proj_in.bias.delta"])
    changed = {name for name in own if not torch.equal(own[name], got[name])}
    assert changed == {Q, "proj_in.bias"}
    assert got["proj_in.weight"].data_ptr() == own["proj_in.weight"].data_ptr()  # shared, not copied
    about = json.loads((folder / "operator.json").read_text())
    assert about["base"] == base.fingerprint and about["space"] == "s" and about["provenance"] == {"steps": 7}


def test_whole_prior_takes_the_statistics_of_the_base(tmp_path, base):
    other = new_prior(ClipStats(torch.ones(DIM), torch.ones(DIM)), layers=2, heads=2, head_dim=12, seed=2)
    state = other.transformer.state_dict()
    folder = save_operator(tmp_path, BUILTIN["scene"], state, base=base, space="s")
    assert not set(FROZEN) & set(load_file(folder / "prior.safetensors"))
    prior = load_operator(folder, base).prior
    assert prior.stats.std.tolist() == [2.0] * DIM and prior.scheduler == base.scheduler
    got = prior.transformer.state_dict()
    for name in set(state) - set(FROZEN):
        torch.testing.assert_close(got[name], state[name], rtol=1e-3, atol=1e-4)
    save_operator(tmp_path, BUILTIN["scene"], {"proj_in.bias.delta": torch.ones(WIDTH)}, base=base, space="s")
    assert not (tmp_path / "prior.safetensors").exists()


def test_own_operators_keep_their_spec(tmp_path, base, adapter):
    spec = OperatorSpec("blend", (Role("a"), Role("b"), Role("how", "text")), guidance=3.5, steps=9, summary="both")
    assert load_operator(save_operator(tmp_path, spec, adapter, base=base, space="s"), base).spec == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{Q}.up"), rf"missing: {Q}\.up"),
        (lambda t: t.pop(f"{Q}.down"), rf"missing: {Q}\.down"),
        (lambda t: t.update({"proj_of.weight.delta": torch.zeros(2)}), r"surplus: proj_of\.weight\.delta"),
        (lambda t: t.update({"proj_in.bias": torch.zeros(WIDTH)}), r"surplus: proj_in\.bias"),
        (lambda t: t.update({f"{Q}.delta": torch.zeros(WIDTH, WIDTH)}), rf"surplus: {Q}\.delta"),
        (lambda t: t.update({"clip_mean.delta": torch.zeros(1, DIM)}), r"surplus: clip_mean\.delta"),
        (
            lambda t: t.update({"proj_in.bias.delta": torch.zeros(5)}),
            r"misshaped: .* \(5,\) instead of \(24,\)",
        ),
        (
            lambda t: t.update({f"{Q}.up": torch.zeros(WIDTH, 4)}),
            r"misshaped: .*\.up \(24, 4\) instead of \(24, 3\)",
        ),
        (lambda t: t.update({f"{Q}.down": torch.tensor(1.0)}), r"misshaped: .*\.down \(\) instead of \(1, 24\)"),
        (lambda t: t["proj_in.bias.delta"].fill_(float("nan")), r"not finite: proj_in\.bias\.delta"),
    ],
)
def test_adapters_that_do_not_fit_are_named(base, folder, change, message):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_operator(folder, base)
    assert "adapter.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_whole_priors_that_do_not_fit_are_named(tmp_path, base):
    folder = save_operator(tmp_path, BUILTIN["scene"], base.transformer.state_dict(), base=base, space="s")

    def break_it(tensors):
        for name in list(tensors)[:6]:
            del tensors[name]
        tensors["extra"] = torch.zeros(1)

    rewrite(folder, break_it, "prior.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: .* and 2 more; surplus: extra"):
        load_operator(folder, base)
    with pytest.raises(CheckpointError, match="misshaped"):
        put_on(base, {n: v[..., :1] for n, v in base.transformer.state_dict().items() if n not in FROZEN})


def test_another_base_or_space_is_refused(base, folder):
    other = new_prior(base.stats, layers=2, heads=2, head_dim=12, seed=9)
    with pytest.raises(CheckpointError, match=f"trained from base prior {base.fingerprint}, this one is"):
        load_operator(folder, other)
    with pytest.raises(SpaceError, match="the operator is of space 's', the model of 'other'"):
        load_operator(folder, base, space="other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "zip"}, "does not describe an operator"),
        ({"version": "2"}, "has version 2; update pops"),
        ({"weights": "../secret.safetensors"}, "weights must be adapter"),
        ({"base": None}, "does not describe an operator"),
        ({"spec": {"name": "x"}}, r"operator\.json cannot be read"),
    ],
)
def test_bad_descriptions_are_refused(base, folder, change, message):
    about = json.loads((folder / "operator.json").read_text()) | change
    (folder / "operator.json").write_text(json.dumps(about))
    write_manifest(folder)
    with pytest.raises(CheckpointError, match=message):
        load_operator(folder, base)


def test_unreadable_folders(tmp_path, base, folder):
    with pytest.raises(CheckpointError, match="not an operator folder"):
        load_operator(tmp_path, base)
    (folder / "adapter.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors has 4 bytes instead of [0-9]+"):
        load_operator(folder, base)
    write_manifest(folder)
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors cannot be read"):
        load_operator(folder, base)
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors is missing"):
        load_operator(folder, base)
    (folder / "operator.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"operator\.json cannot be read"):
        load_operator(folder, base)


def test_nothing_wrong_is_saved(tmp_path, base):
    with pytest.raises(CheckpointError, match="surplus"):
        save_operator(tmp_path / "op", BUILTIN["union"], {"x.delta": torch.zeros(1)}, base=base, space="s")
    assert not list(tmp_path.iterdir())


def test_export_needs_a_known_spec(tmp_path, base):
    from pops.training.config import TrainConfig
    from pops.training.trainer import Trained, export

    trained = Trained(TrainConfig(operator="blend"), 1, base, {})
    with pytest.raises(ConfigError, match="no built-in operator; pass its spec"):
        export(trained, tmp_path, base=base, space="s")
