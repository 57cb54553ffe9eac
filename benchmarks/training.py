"""Times a training step of an operator, the public recipe's and ours in turn: forward, backward, clip, optimiser.

The public way computes all 81 slots with plain AdamW and encodes three images per sample inside the loop; ours computes
the slots in use, on stored embeddings, with fused AdamW, as pops.training does. Same weights, same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.machine import timed
from benchmarks.public import padded

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pops.prior.transformer import PriorModel

LR, GRAD_CLIP = 1e-5, 1.0  # the official recipe's
PICTURES = 3  # images per sample: two operands and the target
# ViT-bigG/14, Kandinsky 2.2's image encoder of LAYERS_OF_ENCODER layers, here cut to as many as the prior.
ENCODER: Mapping[str, Any] = {
    "hidden_size": 1664,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "hidden_act": "gelu",
}
LAYERS_OF_ENCODER = 48


@dataclass(frozen=True)
class Row:
    """Median seconds of a step of `batch` samples. average: our running average of the weights, in addition."""

    batch: int
    public: float
    encoder: float  # encoding the public way's images, in addition
    ours: dict[str, float]  # by precision: fp32, bf16 (autocast)
    average: float
    ratios: dict[str, float]  # public / ours, both on stored embeddings
    ratios_with_encoder: dict[str, float]  # public with its encoder / ours without


@dataclass
class Report:
    """loss_error: relative difference of the first losses of both ways, in float32."""

    layers: int
    encoder_layers: int
    parameters: int  # of the cut prior
    loss_error: float = 0.0
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Samples:
    """A step's samples: images [B * 3, 3, side, side]; embeddings of operands [B, 2, D], target [B, D]; noise, t."""

    pictures: Tensor
    operands: Tensor
    target: Tensor
    noise: Tensor
    t: Tensor


def measure(
    layers: int,
    batches: Sequence[int],
    *,
    rounds: int,
    device: torch.device,
    shape: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] | None = None,
    on_round: Callable[[str], None] = lambda what: None,
) -> Report:
    """Measures every batch size, after one untimed step of each way; calls on_round before each round."""
    from benchmarks.random_prior import RandomTensors, count, settings
    from pops.prior.config import PriorConfig
    from pops.prior.transformer import PriorModel

    # 1) The same weights for both, and the encoder.
    config = settings(layers, shape)
    base = PriorModel(tensors=RandomTensors(PriorConfig.of(config)), settings=config, device=device)
    ours = Ours(base)
    theirs = Public(base.transformer)
    tower = new_encoder(layers, base.dim, ENCODER if encoder is None else encoder).to(device)
    report = Report(layers, layers, count(base.config))

    # 2) Rounds: a step each way, in turn.
    for batch in batches:
        steps = _steps(theirs, ours, tower, new_samples(batch, tower, device))
        times: dict[str, list[float]] = {name: [] for name in steps}
        for i in range(rounds + 1):
            on_round(f"training, batch {batch}: {'warming up' if i == 0 else f'round {i} of {rounds}'}")
            done = {name: timed(step, device) for name, step in steps.items()}
            if i > 0:
                for name, (seconds, _) in done.items():
                    times[name].append(seconds)
            elif not report.rows:
                report.loss_error = abs(done["fp32"][1] / done["public"][1] - 1)
        mid = {name: median(values) for name, values in times.items()}
        mine = {name: mid[name] for name in ("fp32", "bf16")}
        plain = {name: mid["public"] / seconds for name, seconds in mine.items()}
        full = {name: (mid["public"] + mid["encoder"]) / seconds for name, seconds in mine.items()}
        report.rows.append(Row(batch, mid["public"], mid["encoder"], mine, mid["average"], plain, full))
    return report


def _steps(theirs: Public, ours: Ours, tower: nn.Module, s: Samples) -> dict[str, Callable[[], Any]]:
    return {
        "encoder": lambda: embed(tower, s.pictures),
        "public": lambda: theirs.step(s),
        "fp32": lambda: ours.step(s, "fp32"),
        "bf16": lambda: ours.step(s, "bf16"),
        "average": ours.average,
    }


class Public:
    """The official recipe's step: the whole prior, all its slots, plain AdamW."""

    def __init__(self, prior: Any) -> None:
        import torch

        from pops.prior.transformer import FROZEN

        self.prior = prior.train()
        for name, parameter in prior.named_parameters():
            parameter.requires_grad_(name not in FROZEN)
        self.trained = [p for p in prior.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LR, weight_decay=0.0)

    def step(self, s: Samples) -> float:
        import torch
        from torch.nn.functional import mse_loss

        from pops.prior.noise import add_noise, alphas_cumprod

        tokens, mask = padded(s.operands, self.prior.config.num_embeddings)
        text = s.target.new_zeros(len(s.target), self.prior.embedding_proj.in_features)
        z = add_noise(s.target, s.noise, s.t, alphas_cumprod().to(s.target.device))
        x0 = self.prior(z, s.t, text, tokens, mask).predicted_image_embedding
        loss = mse_loss(x0, s.target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, GRAD_CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


class Ours:
    """The step of pops.training.trainer: the slots in use, fused AdamW; the average of the weights is timed apart."""

    def __init__(self, base: PriorModel) -> None:
        import torch

        from pops.training.config import TrainConfig
        from pops.training.trainable import Trainable

        self.config = TrainConfig.of("texturing", lr=LR, grad_clip=GRAD_CLIP, rank=0)
        self.model = Trainable(base, self.config).to(base.device)
        self.trained = list(self.model.trained().values())
        fused = base.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(self.trained, lr=LR, weight_decay=0.0, fused=fused)
        self.averaged = [p.detach().clone() for p in self.trained]

    def step(self, s: Samples, precision: str) -> float:
        import torch

        from pops.prior.condition import Condition
        from pops.prior.noise import add_noise, alphas_cumprod
        from pops.training import losses

        z = add_noise(s.target, s.noise, s.t, alphas_cumprod().to(s.target.device))
        with torch.autocast(s.target.device.type, torch.bfloat16, enabled=precision == "bf16"):
            x0 = self.model(z, s.t, Condition(s.operands))
        loss = losses.mse(x0, s.target).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, GRAD_CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def average(self) -> None:
        import torch

        torch._foreach_lerp_(self.averaged, [p.detach() for p in self.trained], 1 - self.config.ema)


def new_encoder(layers: int, dim: int, shape: Mapping[str, Any]) -> nn.Module:
    """Builds transformers' CLIP image tower with random weights and so many layers."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPVisionConfig(**shape, num_hidden_layers=layers, projection_dim=dim)
        tower: nn.Module = CLIPVisionModelWithProjection(config).eval().requires_grad_(False)
        return tower


def embed(tower: Any, pictures: Tensor) -> Tensor:
    """Encodes [n, 3, side, side] => [n, D], as the recipe does in its loop."""
    import torch

    with torch.no_grad():
        e: Tensor = tower(pictures).image_embeds
        return e


def new_samples(batch: int, tower: Any, device: torch.device) -> Samples:
    """Draws images of noise, their embeddings scaled to unit variance, noise and timesteps from one seed."""
    import torch

    gen = torch.Generator().manual_seed(batch)
    side = tower.config.image_size
    pictures = torch.randn(batch * PICTURES, 3, side, side, generator=gen).to(device)
    e = embed(tower, pictures)
    e = (e / e.std()).view(batch, PICTURES, -1)
    noise = torch.randn(batch, e.shape[-1], generator=gen).to(device)
    t = torch.randint(1000, (batch,), generator=gen).to(device)
    return Samples(pictures, e[:, :2].contiguous(), e[:, 2].contiguous(), noise, t)
