"""Few-step samplers: against diffusers' schedulers, against exact solutions, and alone, in batches and in threads."""

import threading
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from pops.errors import Cancelled, ConfigError
from pops.prior import samplers, solvers
from pops.prior.noise import SchedulerConfig, timesteps
from pops.prior.samplers import SAMPLERS, draws, follow, sampler
from pops.seeds import generators, randn_items

DIM = 24
NAMES = sorted(SAMPLERS)


def smooth(z, t):
    """Stands in for a prior: depends on both arguments, and exceeds the range of a clamp at 1."""
    return 1.5 * torch.sin(z) + t[:, None] / 1000


def ours(name, seeds, steps, clip=1.0, denoise=smooth, on_step=None):
    gens = generators(seeds)
    z = randn_items((DIM,), gens)
    return SAMPLERS[name](denoise, z, gens, steps=steps, scheduler=SchedulerConfig(clip=clip), on_step=on_step)


# --- against the public schedulers ----------------------------------------------------------------------------------


def public_ddim(seeds, steps, eta):
    """Samples with DDIMScheduler, which clamps and computes eps from the clamped prediction, as ours does.

    Its table is converted to float64: in float32, cancellation at eta = 1 from pure noise costs four digits.
    """
    scheduler = DDIMScheduler(
        prediction_type="sample", beta_schedule="squaredcos_cap_v2", clip_sample_range=1.0, timestep_spacing="trailing"
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(steps)
    gens = generators(seeds)
    z = randn_items((DIM,), gens)
    for i, t in enumerate(scheduler.timesteps):
        noise = randn_items((DIM,), gens) if eta and i + 1 < steps else torch.zeros_like(z)
        x0 = smooth(z, t.expand(len(z)))
        how = {"eta": eta if i + 1 < steps else 0.0, "use_clipped_model_output": True, "variance_noise": noise}
        z = scheduler.step(x0, t, z, **how).prev_sample
    return z.float()


def public_dpm(path, seeds, kind):
    """Samples with DPMSolverMultistepScheduler, whose only clamp is Imagen's, so ours is before; sigma ends at 0."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="sample", beta_schedule="squaredcos_cap_v2", algorithm_type=kind, solver_order=2
    )
    scheduler.set_timesteps(timesteps=path)
    gens = generators(seeds)
    z = randn_items((DIM,), gens)
    for i, t in enumerate(scheduler.timesteps):
        noise = randn_items((DIM,), gens) if kind.startswith("sde") and i + 1 < len(path) else torch.zeros_like(z)
        x0 = smooth(z, t.expand(len(z))).clamp(-1, 1)
        z = scheduler.step(x0, t, z, variance_noise=noise).prev_sample
    return z


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 25])  # divisors of 1000, which this scheduler needs
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_the_public_scheduler(steps, eta):
    def solver(path, n):
        return solvers.ddim(path, n, eta)

    gens = generators([7, 8])
    z, config = randn_items((DIM,), gens), SchedulerConfig(clip=1.0)
    mine = sampler(solvers.trailing, solver)(smooth, z, gens, steps=steps, scheduler=config)
    torch.testing.assert_close(mine, public_ddim([7, 8], steps, eta), rtol=1e-5, atol=1e-5)
    if eta == 0:
        assert torch.equal(mine, ours("ddim", [7, 8], steps))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 8, 25])
@pytest.mark.parametrize(("name", "kind"), [("dpm++2m", "dpmsolver++"), ("dpm++2m-sde", "sde-dpmsolver++")])
def test_dpm_solver_is_the_public_scheduler(steps, name, kind):
    there = public_dpm(solvers.trailing(steps, 1000), [7, 8], kind)
    torch.testing.assert_close(ours(name, [7, 8], steps), there, rtol=1e-5, atol=1e-5)


# --- against exact solutions ----------------------------------------------------------------------------------------

SPREAD, MEAN = 0.5, 0.3


def gaussian(z, t):
    """Predicts x0 of N(MEAN, SPREAD^2) data: the posterior's mean, which is linear in z."""
    table = solvers.levels(1000)
    alpha, sigma = table[int(t[0])].alpha, table[int(t[0])].sigma
    return MEAN + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * (z - alpha * MEAN)


def error(solver, path, steps):
    """Returns the largest error of the probability flow's end point, a draw of the data at the quantile of z."""
    gens = generators([0])
    z = randn_items((64,), gens).double()
    start = solvers.levels(1000)[999]
    z_spread = (start.alpha**2 * SPREAD**2 + start.sigma**2) ** 0.5
    exact = MEAN + SPREAD * (z - start.alpha * MEAN) / z_spread
    mine = sampler(path, solver)(gaussian, z, gens, steps=steps, scheduler=SchedulerConfig(clip=None))
    return float((mine - exact).abs().max())


@pytest.mark.parametrize("path", [timesteps, solvers.trailing])
def test_orders_of_convergence(path):
    first = [error(solvers.ddim, path, steps) for steps in (32, 64, 128)]
    second = [error(solvers.dpmpp_2m, path, steps) for steps in (32, 64, 128)]
    assert first[0] / first[2] == pytest.approx(4, rel=0.05)
    assert second[0] / second[2] > 10
    assert second[2] < first[2] / 4


def test_eight_steps_of_second_order_beat_eight_of_first():
    assert error(solvers.dpmpp_2m, solvers.trailing, 8) < error(solvers.ddim, solvers.trailing, 8) / 2


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_a_gaussian_have_its_mean_and_spread(name):
    gens = generators([0])
    z = randn_items((50_000,), gens)
    out = SAMPLERS[name](gaussian, z, gens, steps=200, scheduler=SchedulerConfig(clip=None))
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.02) and float(out.std()) == pytest.approx(SPREAD, rel=0.03)


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_the_clamped_prediction_at_pure_noise(name):
    seen = []

    def denoise(z, t):
        seen.append(t.tolist())
        return 3 * smooth(z, t)

    z = randn_items((DIM,), generators([5, 6]))
    wanted = (3 * smooth(z, torch.tensor([999, 999]))).clamp(-1, 1)
    torch.testing.assert_close(ours(name, [5, 6], 1, denoise=denoise), wanted)
    assert seen == [[999, 999]]


@given(
    name=st.sampled_from(NAMES),
    seeds=st.lists(st.integers(0, 50), min_size=1, max_size=5),
    steps=st.integers(1, 30),
)
@settings(deadline=None, max_examples=40)
def test_a_batch_is_its_items(name, seeds, steps):
    batch = ours(name, seeds, steps)
    assert bool(batch.isfinite().all()) and float(batch.abs().max()) < 1.5
    for i, seed in enumerate(seeds):
        assert torch.equal(batch[i : i + 1], ours(name, [seed], steps))


@pytest.mark.parametrize(("name", "drawn"), [("ancestral", 5), ("ddim", 0), ("dpm++2m", 0), ("dpm++2m-sde", 5)])
def test_a_stochastic_step_draws_once_and_the_last_never(name, drawn):
    gens, twin = generators([4]), generators([4])
    z = randn_items((DIM,), gens)
    SAMPLERS[name](smooth, z, gens, steps=6, scheduler=SchedulerConfig())
    for _ in range(1 + drawn):
        randn_items((DIM,), twin)
    assert torch.equal(randn_items((DIM,), gens), randn_items((DIM,), twin))


@pytest.mark.parametrize("count", [0, 1, 7, 9])
@pytest.mark.parametrize("ahead", [1, 3, 64])
def test_noise_drawn_ahead_is_the_same_noise(count, ahead):
    z, gens, twin = torch.zeros(2, DIM), generators([1, 2]), generators([1, 2])
    some = list(draws(gens, z, count, ahead=ahead))
    assert len(some) == count
    assert all(torch.equal(noise, randn_items((DIM,), twin)) for noise in some)


@pytest.mark.parametrize("name", NAMES)
def test_a_cancelled_run_ends_within_its_step(name):
    calls = []

    def denoise(z, t):
        calls.append(int(t[0]))
        return smooth(z, t)

    def stop(done, total):
        assert total == 8
        if done == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        ours(name, [0], 8, denoise=denoise, on_step=stop)
    assert len(calls) == 3
    assert torch.equal(ours(name, [0], 8), ours(name, [0], 8)), "nothing of it is left behind"


def test_threads_share_the_samplers():
    """All at once and in lockstep, so that any shared state would show."""
    jobs = [(name, seed, steps) for name in NAMES for seed, steps in [(1, 8), (2, 8), (3, 5)]]
    alone = [ours(name, [seed], steps) for name, seed, steps in jobs]
    together: list[torch.Tensor] = [torch.empty(0)] * len(jobs)
    gate = threading.Barrier(len(jobs))

    def work(i):
        name, seed, steps = jobs[i]
        gate.wait(timeout=30)
        together[i] = ours(name, [seed], steps)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_prediction_is_clamped_before_it_is_reused():
    """A second-order step uses the previous prediction: unclamped, 1e6 would show in the next."""

    def denoise(z, t):
        return torch.full_like(z, 1e6)

    for name in set(NAMES) - {"ancestral"}:
        assert torch.unique(ours(name, [0], 6, clip=2.0, denoise=denoise)).tolist() == [2.0]


@given(steps=st.integers(1, 1000), n=st.integers(2, 1000))
def test_trailing_starts_at_pure_noise_and_falls(steps, n):
    if steps > n:
        with pytest.raises(ConfigError, match=f"steps must be between 1 and {n}, got {steps}"):
            solvers.trailing(steps, n)
        return
    path = solvers.trailing(steps, n)
    assert path[0] == n - 1 and path[-1] >= 0 and len(path) == steps
    assert all(a > b for a, b in pairwise(path))


@given(steps=st.integers(1, 60))
@settings(deadline=None)
def test_a_solver_keeps_data_that_need_no_denoising(steps):
    """With data at zero, x0 = 0 and z only shrinks; the factors of a constant prediction sum to what it adds to z."""
    for solver in (solvers.ddim, solvers.dpmpp_2m, solvers.dpmpp_2m_sde):
        path = solvers.trailing(steps, 1000)
        table = solvers.levels(1000)
        for step, after in zip(solver(path, 1000), [*path[1:], None], strict=True):
            now = table[step.t]
            alpha, sigma = (1.0, 0.0) if after is None else (table[after].alpha, table[after].sigma)
            assert sum(step.x0_factors) + step.z_factor * now.alpha == pytest.approx(alpha, abs=1e-9)
            assert (step.z_factor * now.sigma) ** 2 + step.noise**2 == pytest.approx(sigma**2, abs=1e-9)


def test_generators_must_match():
    table = solvers.ddim([999, 500], 1000)
    with pytest.raises(ConfigError, match="2 items need as many generators, got 1"):
        follow(table, smooth, torch.zeros(2, DIM), generators([0]), clip=1.0)
    assert samplers.AHEAD > 25
