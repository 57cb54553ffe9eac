"""The engine against its slow twin, diffusers' own forward over all 81 slots."""

from __future__ import annotations

import threading

import pytest
import torch
from diffusers import PriorTransformer

from pops.errors import ConfigError, ModelError
from pops.operators.operator import Task, sample
from pops.prior import linear
from pops.prior.condition import Condition
from pops.prior.config import PriorConfig
from pops.prior.engine import Engine, Request
from pops.prior.graphs import Recorded, buffers, direct, direct_of
from pops.prior.layers import layers
from pops.prior.samplers import SAMPLERS
from pops.prior.transformer import PriorModel, plain_denoiser
from pops.seeds import generators
from pops.standardise import ClipStats
from pops.training.trainable import new_prior, save_prior

DIM = 24


@pytest.fixture(scope="module")
def prior() -> PriorModel:
    model = new_prior(ClipStats(torch.randn(DIM), torch.rand(DIM) + 0.5), layers=3, heads=3, head_dim=8)
    gen = torch.Generator().manual_seed(5)
    for p in model.transformer.parameters():  # no tiny weights, no zero biases: every parameter must matter
        p.data += 0.1 * torch.randn(p.shape, generator=gen)
    return model


def adapter_weights(prior: PriorModel, seed: int) -> dict[str, torch.Tensor]:
    """Returns adapter tensors of every kind, for some of the parameters."""
    gen = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return 0.2 * torch.randn(shape, generator=gen)

    out: dict[str, torch.Tensor] = {}
    for name, shape in prior.config.shapes.items():
        if name.startswith("clip_"):
            continue
        if len(shape) == 2 and "blocks" in name and "to_k" not in name:
            out |= {f"{name}.down": rand(2, shape[1]), f"{name}.up": rand(shape[0], 2)}
        elif "to_k" not in name or name.endswith("bias"):
            out[f"{name}.delta"] = rand(*shape)
    return out


def near(a: torch.Tensor, b: torch.Tensor, most: float = 1e-5) -> None:
    assert float((a - b).norm() / b.norm()) <= most


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("guidance", [1.0, 8.0])
@pytest.mark.parametrize("tokens", [1, 2, 3, 12, 76, 77])
def test_a_step_is_the_whole_forward(prior, tokens, guidance, batch):
    gen = torch.Generator().manual_seed(tokens)
    c = Condition(torch.randn(batch, tokens, DIM, generator=gen))
    c.tokens[0, 0] = 0  # a missing operand
    z, t = torch.randn(batch, DIM, generator=gen), torch.randint(1000, (batch,), generator=gen)
    fast = prior.engine.denoiser([Request(c, guidance)])
    slow = plain_denoiser(prior, c, unconditional=c.zeros(), guidance=guidance)
    with torch.no_grad():
        for _ in range(2):  # the second time with used buffers and a cached unconditional prefix
            near(fast(z, t), slow(z, t))


def test_rows_of_unequal_length_and_texts(prior):
    gen = torch.Generator().manual_seed(1)
    parts = [Condition(torch.randn(n, k, DIM, generator=gen)) for n, k in ((2, 2), (1, 9), (1, 2), (3, 5))]
    c = Condition.cat(parts)
    z, t = torch.randn(len(c), DIM, generator=gen), torch.full((len(c),), 500)
    with torch.no_grad():
        for scale in (1.0, 4.0):
            fast = prior.engine.denoiser([Request(c, scale)])(z, t)
            near(fast, plain_denoiser(prior, c, unconditional=c.zeros(), guidance=scale)(z, t))
        text = Condition(torch.randn(2, 6, DIM, generator=gen), None, torch.randn(2, DIM, generator=gen))
        empty = Condition(torch.randn(1, 2, DIM, generator=gen), None, torch.randn(1, DIM, generator=gen))
        fast = prior.engine.denoiser([Request(text, 3.0, empty)])(z[:2], t[:2])
        near(fast, plain_denoiser(prior, text, unconditional=empty.expand(2), guidance=3.0)(z[:2], t[:2]))
    holes = Condition(torch.zeros(1, 3, DIM), torch.tensor([[True, False, True]]))
    with pytest.raises(ModelError, match="padding must come after"):
        prior.engine.denoiser([Request(holes)])


def test_rows_of_several_operators_in_one_batch(prior):
    gen = torch.Generator().manual_seed(2)
    models = [prior, prior.with_adapter(adapter_weights(prior, 1)), prior.with_adapter(adapter_weights(prior, 2))]
    conditions = [Condition(torch.randn(n, k, DIM, generator=gen)) for n, k in ((2, 2), (3, 2), (1, 7))]
    scales = [1.0, 6.0, 2.0]
    tasks = [Task(m, c, s) for m, c, s in zip(models, conditions, scales, strict=True)]
    together = sample(tasks, generators(range(6)), steps=3)
    slow = sample(tasks, generators(range(6)), steps=3, full=True)
    near(together, slow)
    alone = [sample([t], generators(r), steps=3) for t, r in zip(tasks, (range(2), range(2, 5), [5]), strict=True)]
    near(together, torch.cat(alone))
    assert models[1].engine is prior.engine
    assert float((sample([Task(prior, conditions[1], 6.0)], generators(range(2, 5)), steps=3) - alone[1]).norm()) > 0.1
    other = Task(prior.with_weights({}), conditions[0], 1.0)
    with pytest.raises(ConfigError, match="cannot share a batch"):
        sample([tasks[0], other], generators(range(4)), steps=1)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_gives_the_twins_embeddings(prior, name):
    c = Condition(torch.randn(7, 2, DIM, generator=torch.Generator().manual_seed(3)))
    for scale, steps in ((1.0, 1), (4.0, 5)):
        fast = sample([Task(prior, c, scale)], generators(range(7)), steps=steps, sampler=name)
        near(fast, sample([Task(prior, c, scale)], generators(range(7)), steps=steps, sampler=name, full=True))
        near(fast[2:3], sample([Task(prior, c[2:3], scale)], generators([2]), steps=steps, sampler=name))


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.02), ("float16", 0.003), ("int8", 0.03)])
def test_other_precisions_come_close(prior, precision, most):
    c = Condition(torch.randn(3, 2, DIM, generator=torch.Generator().manual_seed(4)))
    z, t = torch.randn(3, DIM), torch.full((3,), 700)
    engine = Engine(prior.config, prior.tensors, precision=precision)
    with torch.no_grad():
        near(engine.denoiser([Request(c)])(z, t), prior.predict_x0(z, t, c), most)


def test_an_unavailable_precision_is_an_error(prior):
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        Engine(prior.config, prior.tensors, precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="on a CPU only, not on meta"):
        Engine(prior.config, prior.tensors, precision="int8", device="meta")


def test_full_width_blocks_are_exact():
    """Random weights of the published shape, cut to four layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = PriorTransformer(32, 64, 4, 1280)
        for p in transformer.parameters():
            p.data.normal_(std=0.02)
    model = PriorModel(transformer.eval())
    gen = torch.Generator().manual_seed(0)
    c = Condition(torch.randn(2, 2, 1280, generator=gen))
    z, t = torch.randn(2, 1280, generator=gen), torch.tensor([999, 40])
    with torch.no_grad():
        fast = model.engine.denoiser([Request(c, 8.0)])(z, t)
        near(fast, plain_denoiser(model, c, unconditional=c.zeros(), guidance=8.0)(z, t))


def test_options_of_the_transformer():
    options = {"norm_in_type": "layer", "embedding_proj_norm_type": "layer", "embedding_proj_dim": 20}
    model = PriorModel(PriorTransformer(2, 12, 2, DIM, **options).eval())
    c = Condition(torch.randn(2, 3, DIM), None, torch.randn(2, 20))
    z, t = torch.randn(2, DIM), torch.tensor([3, 600])
    with torch.no_grad():
        near(model.engine.denoiser([Request(c)])(z, t), model.predict_x0(z, t, c))
    plain = {k: tuple(v.shape) for k, v in model.transformer.state_dict().items()}
    assert model.config.shapes == plain
    names = [stem for stems in layers(model.config).values() for stem in stems]
    assert len(names) == len(set(names))


def test_weights_are_read_one_at_a_time(prior, tmp_path):
    save_prior(prior, tmp_path)
    loaded = PriorModel.load(tmp_path)
    assert loaded._transformer is None
    c = Condition(torch.randn(1, 2, DIM))
    x = sample([Task(loaded, c, 2.0)], generators([0]), steps=2)
    assert loaded._transformer is None, "sampling does not build diffusers' module"
    near(x, sample([Task(loaded, c, 2.0)], generators([0]), steps=2, full=True))
    assert loaded.fingerprint == PriorModel.load(tmp_path).fingerprint


def test_unconditional_prefixes_are_cached_once(prior):
    model = prior.with_weights({})
    c = Condition(torch.randn(4, 2, DIM))
    for n in (4, 2, 3):
        model.engine.denoiser([Request(c[:n], 2.0)])
    assert len(model.engine.zero_prefixes) == 1
    model.engine.denoiser([Request(Condition(torch.randn(1, 3, DIM)), 2.0)])
    assert len(model.engine.zero_prefixes) == 2


def test_two_threads_sample_at_once(prior):
    c = [Condition(torch.randn(2, 2, DIM, generator=torch.Generator().manual_seed(i))) for i in range(2)]
    alone = [sample([Task(prior, c[i], 3.0)], generators([i, i]), steps=6) for i in range(2)]
    both: list[torch.Tensor | None] = [None, None]

    def work(i: int) -> None:
        for _ in range(5):
            both[i] = sample([Task(prior, c[i], 3.0)], generators([i, i]), steps=6)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, expected in zip(both, alone, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, expected, rtol=0, atol=0)


class _Tape:
    """Imitates a recorded CUDA graph without CUDA: repeats the call, into the same result tensor."""

    def __init__(self, run):
        self.run, self.result = run, run()

    def replay(self):
        self.result.copy_(self.run())
        return self.result


def test_recorded_steps_keep_requests_apart(prior):
    engine = prior.engine
    recorded = Recorded(direct_of(engine, [None, None]), _Tape)
    prefixes = [engine.prefix(Condition(torch.randn(2, 2, DIM))) for _ in range(2)]
    steps = [recorded.bound(*buffers(engine, p)) for p in prefixes]
    plain = [direct(engine, p, [None, None]) for p in prefixes]
    for turn in (0, 0, 1, 0, 1, 1):
        z, t = torch.randn(2, DIM), torch.randint(1000, (2,))
        torch.testing.assert_close(steps[turn](z, t), plain[turn](z, t), rtol=1e-6, atol=1e-7)


def test_a_config_of_another_prior_is_refused():
    with pytest.raises(ModelError, match="not of the unCLIP form"):
        PriorConfig.of({"added_emb_type": None})


def test_int8_where_no_kernel_multiplies_int8(monkeypatch):
    weight, bias, x = torch.randn(16, 24), torch.randn(16), torch.randn(5, 24)
    fast = linear.linear(weight, bias, "int8", torch.device("cpu"))
    monkeypatch.setattr(linear, "_onednn_multiplies", lambda: False)
    slow = linear.linear(weight, bias, "int8", torch.device("cpu"))
    for gelu in (False, True):
        exact = torch.nn.functional.linear(x, weight, bias)
        exact = torch.nn.functional.gelu(exact) if gelu else exact
        near(slow(x, gelu), exact, 0.02)
        near(fast(x, gelu), slow(x, gelu), 0.02)
