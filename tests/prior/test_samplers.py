"""The ancestral sampler against UnCLIPScheduler's own loop with the same draws, and guidance."""

import pytest
import torch
from diffusers import UnCLIPScheduler

from pops.errors import Cancelled, ConfigError
from pops.prior.condition import Condition
from pops.prior.noise import SchedulerConfig
from pops.prior.samplers import SAMPLERS, sample_ancestral
from pops.prior.solvers import ancestral_coefficients
from pops.prior.transformer import plain_denoiser
from pops.seeds import generators, randn_items
from pops.standardise import ClipStats
from pops.training.trainer import new_prior

DIM = 24


def wild(z, t):
    """Stands in for a prior: depends on both arguments, and exceeds the clamp's range."""
    return 2.0 * torch.sin(3 * z) + t[:, None] / 400


def public_loop(denoise, seeds, steps, **config):
    """Samples as the public pipeline does: draws from the generators inside scheduler.step."""
    scheduler = UnCLIPScheduler(prediction_type="sample", **config)
    scheduler.set_timesteps(steps)
    gens = generators(seeds)
    z = randn_items((DIM,), gens)
    for i, t in enumerate(scheduler.timesteps):
        after = scheduler.timesteps[i + 1] if i + 1 < steps else None
        x0 = denoise(z, t.expand(len(z)))
        z = scheduler.step(x0, t, z, prev_timestep=after, generator=gens).prev_sample
    return z


def ours(denoise, seeds, steps, clip=1.0, on_step=None):
    gens = generators(seeds)
    z, scheduler = randn_items((DIM,), gens), SchedulerConfig(clip=clip)
    return sample_ancestral(denoise, z, gens, steps=steps, scheduler=scheduler, on_step=on_step)


@pytest.mark.parametrize("steps", [2, 3, 25, 1000])
@pytest.mark.parametrize("seeds", [[0], [7, 8, 7]])
def test_ancestral_is_the_public_loop(steps, seeds):
    assert torch.equal(ours(wild, seeds, steps), public_loop(wild, seeds, steps))


def test_clamp_comes_from_the_scheduler():
    wide, none = ours(wild, [1], 5, clip=3.0), ours(wild, [1], 5, clip=None)
    assert torch.equal(wide, public_loop(wild, [1], 5, clip_sample_range=3.0))
    assert torch.equal(none, public_loop(wild, [1], 5, clip_sample=False))
    assert not torch.equal(wide, none) and not torch.equal(wide, ours(wild, [1], 5))


def test_the_last_steps_factor_is_not_one():
    out = ours(lambda z, t: torch.full_like(z, 0.5), [3], 25)
    assert torch.unique(out).tolist() == pytest.approx([0.5 * 0.9994723], rel=1e-7)
    x0_factor, z_factor, sigma = ancestral_coefficients(0, None, 1000)
    assert float(x0_factor) == pytest.approx(0.9994723, rel=1e-7) and float(z_factor) == float(sigma) == 0


def test_one_step_is_the_clamped_prediction_at_pure_noise():
    seen = []

    def denoise(z, t):
        seen.append(t.tolist())
        return wild(z, t)

    gens = generators([5, 6])
    out = ours(denoise, [5, 6], 1)
    torch.testing.assert_close(out, wild(randn_items((DIM,), gens), torch.tensor([999, 999])).clamp(-1, 1))
    assert seen == [[999, 999]]


def test_draws_are_the_start_and_one_a_step_but_the_last():
    gens, twin = generators([4]), generators([4])
    z = randn_items((DIM,), gens)
    sample_ancestral(wild, z, gens, steps=6, scheduler=SchedulerConfig())
    for _ in range(6):
        randn_items((DIM,), twin)
    assert torch.equal(randn_items((DIM,), gens), randn_items((DIM,), twin))


def test_a_batch_is_its_items():
    batch = ours(wild, [1, 2, 3], 10)
    for i, seed in enumerate([1, 2, 3]):
        assert torch.equal(batch[i : i + 1], ours(wild, [seed], 10))


def test_on_step_counts_and_may_stop():
    seen = []
    ours(wild, [0], 4, on_step=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def stop(done, total):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        ours(wild, [0], 4, on_step=stop)


def test_generators_must_match():
    with pytest.raises(ConfigError, match="2 items need as many generators, got 1"):
        sample_ancestral(wild, torch.zeros(2, DIM), generators([0]), steps=2, scheduler=SchedulerConfig())
    assert SAMPLERS["ancestral"] is sample_ancestral


def test_guidance_is_on_the_prediction():
    prior = new_prior(ClipStats(torch.zeros(DIM), torch.ones(DIM)), layers=2, heads=2, head_dim=8)
    z, t = torch.randn(2, DIM), torch.tensor([20, 900])
    cond = Condition(torch.randn(2, 3, DIM))
    with torch.no_grad():
        there, away = (prior.predict_x0(z, t, c) for c in (cond, cond.zeros()))
        for scale in (0.0, 0.5, 1.0, 1.5, 8.0):
            guided = plain_denoiser(prior, cond, unconditional=cond.zeros(), guidance=scale)(z, t)
            wanted = there if scale <= 1 else away + scale * (there - away)
            torch.testing.assert_close(guided, wanted, rtol=1e-5, atol=1e-5)
