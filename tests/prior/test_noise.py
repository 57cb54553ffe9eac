"""The noise tables, against diffusers' UnCLIPScheduler."""

import json

import pytest
import torch
from diffusers import UnCLIPScheduler

from pops.errors import ConfigError, ModelError
from pops.prior.noise import SchedulerConfig, add_noise, alphas_cumprod, betas, timesteps


@pytest.mark.parametrize("n", [1000, 50])
def test_tables_are_the_schedulers(n):
    scheduler = UnCLIPScheduler(n, prediction_type="sample")
    assert torch.equal(betas(n), scheduler.betas)
    assert torch.equal(alphas_cumprod(n), scheduler.alphas_cumprod)


@pytest.mark.parametrize("steps", [2, 3, 4, 10, 25, 100, 999, 1000])
def test_timesteps_are_the_schedulers(steps):
    scheduler = UnCLIPScheduler()
    scheduler.set_timesteps(steps)
    assert timesteps(steps) == scheduler.timesteps.tolist()


def test_timesteps_at_the_ends():
    assert timesteps(1) == [999] and timesteps(1, 50) == [49]
    for steps in (0, -1, 1001):
        with pytest.raises(ConfigError, match=f"between 1 and 1000, got {steps}"):
            timesteps(steps)


def test_noising_is_the_schedulers():
    z, noise, t = torch.randn(4, 8), torch.randn(4, 8), torch.tensor([0, 1, 500, 999])
    want = UnCLIPScheduler().add_noise(z, noise, t)
    torch.testing.assert_close(add_noise(z, noise, t, alphas_cumprod()), want)


def test_scheduler_config_is_read(tmp_path):
    UnCLIPScheduler(500, prediction_type="sample", clip_sample_range=3.0).save_config(tmp_path / "a")
    assert SchedulerConfig.load(tmp_path / "a") == SchedulerConfig(500, 3.0)
    UnCLIPScheduler(prediction_type="sample", clip_sample=False).save_config(tmp_path / "b")
    assert SchedulerConfig.load(tmp_path / "b") == SchedulerConfig(1000, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "prediction_type must be 'sample' for a prior, got 'epsilon'"),
        ({"prediction_type": "sample", "variance_type": "learned_range"}, "variance_type must be"),
        ({"prediction_type": "sample", "beta_schedule": "linear"}, "beta_schedule must be"),
        ([], "holds no JSON object"),
        ({"num_train_timesteps": "many"}, "cannot be read"),
    ],
)
def test_other_schedulers_are_refused(tmp_path, data, message):
    (tmp_path / "scheduler_config.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match=message):
        SchedulerConfig.load(tmp_path)


def test_scheduler_config_checks(tmp_path):
    with pytest.raises(ModelError, match=r"scheduler_config\.json cannot be read"):
        SchedulerConfig.load(tmp_path)
    with pytest.raises(ConfigError, match="clip_sample_range must be positive, or null for no clamp, got 0"):
        SchedulerConfig(clip=0.0)
