"""A small diffusion transformer that learns to draw the digits of scikit-learn in seconds."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from inscape.arrays import threads
from inscape.zoo.digits import Digits, digits
from inscape.zoo.gpt import MLP, Attention

STEPS = 100


class Modulated(nn.Module):
    """A branch of a block whose input is shifted and scaled, and whose output is gated, as the condition says; it starts as nothing."""

    def __init__(self, d: int, branch: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.say = nn.Linear(d, 3 * d)
        self.branch = branch
        nn.init.zeros_(self.say.weight)
        nn.init.zeros_(self.say.bias)

    def forward(self, x: Float[Tensor, "b t d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b t d"]:
        """What the branch adds to the stream."""
        shift, scale, gate = self.say(condition)[:, None].chunk(3, -1)
        return gate * self.branch(self.norm(x) * (1 + scale) + shift)


class DiTBlock(nn.Module):
    """Attention and MLP, both modulated by the condition."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.attn = Modulated(d, Attention(d, heads, causal=False))
        self.mlp = Modulated(d, MLP(d))

    def forward(self, x: Float[Tensor, "b t d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b t d"]:
        """The residual stream after this layer."""
        x = x + self.attn(x, condition)
        return x + self.mlp(x, condition)


class DigitsDiT(nn.Module):
    """A diffusion transformer on 16 patches of 2 × 2 pixels; it says which noise was added to an image.

    Pixels lie between −1 and 1. Timestep 0 is hardly noised, timestep 99 is noise alone.

    Args:
        d: width of the residual stream.
        layers: number of blocks.
        heads: attention heads per block; must divide `d`.

    Example:
        >>> model = DigitsDiT(d=32, layers=2)
        >>> model(torch.zeros(3, 1, 8, 8), torch.tensor([0, 50, 99])).shape
        torch.Size([3, 1, 8, 8])
    """

    share: Tensor  # of the image in its noised form, by timestep

    def __init__(self, d: int = 32, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, d, 2, stride=2)
        self.pos = nn.Parameter(torch.randn(1, 16, d) * 0.02)
        self.time = nn.Sequential(nn.Linear(32, d), nn.SiLU(), nn.Linear(d, d))
        self.label = nn.Embedding(11, d)  # the last one stands for no label
        self.blocks = nn.ModuleList(DiTBlock(d, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, 4)
        # It falls along a cosine.
        angle = (torch.arange(STEPS) + 1) / (STEPS + 1) * math.pi / 2
        self.register_buffer("share", angle.cos() ** 2, persistent=False)

    def forward(
        self, images: Float[Tensor, "n 1 8 8"], timestep: Int[Tensor, " n"], label: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n 1 8 8"]:
        """The noise in each image.

        Args:
            images: noised images.
            timestep: how far each is noised, 0 to 99.
            label: the digit that each shows; by default nobody says.
        """
        frequency = torch.exp(torch.arange(16, device=images.device) * (-math.log(1000) / 15))
        angle = timestep[:, None] * frequency
        label = torch.full_like(timestep, 10) if label is None else label
        condition = F.silu(self.time(torch.cat([angle.sin(), angle.cos()], 1).to(images.dtype)) + self.label(label))
        x = self.embed(images).flatten(2).transpose(1, 2) + self.pos
        for block in self.blocks:
            x = block(x, condition)
        patches = self.head(self.norm(x)).view(-1, 4, 4, 2, 2)
        return patches.permute(0, 1, 3, 2, 4).reshape(-1, 1, 8, 8)

    def add_noise(
        self, images: Float[Tensor, "n 1 8 8"], noise: Float[Tensor, "n 1 8 8"], timestep: Int[Tensor, " n"]
    ) -> Float[Tensor, "n 1 8 8"]:
        """Images noised as far as the timestep says."""
        share = self.share[timestep].view(-1, 1, 1, 1).to(images.dtype)
        return share.sqrt() * images + (1 - share).sqrt() * noise


def train_dit(data: Digits | None = None, *, epochs: int = 60, seed: int = 0, d: int = 32, layers: int = 3) -> DigitsDiT:
    """Trains a diffusion transformer on the digits, on one thread and the same for the same seed; under half a minute.

    Args:
        data: by default `digits()`; pixels between 0 and 1.
        epochs: passes over the training images, in batches of 64.
        seed: start weights, order, timesteps and noise.
        d: width.
        layers: blocks.

    Example:
        >>> train_dit()    # doctest: +SKIP
    """
    data = digits() if data is None else data
    clean = data.train_images * 2 - 1
    with torch.random.fork_rng(devices=[]), threads(1):
        torch.manual_seed(seed)
        model = DigitsDiT(d, layers)
        optimizer = torch.optim.Adam(model.parameters(), lr=8e-3)
        total = epochs * -(-len(clean) // 64)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=total, pct_start=0.1)
        for _ in range(epochs):
            for rows in torch.randperm(len(clean)).split(64):
                timestep, noise = torch.randint(STEPS, (len(rows),)), torch.randn_like(clean[rows])
                # One image in ten is shown without its label, so that the model also draws without being told what.
                label = torch.where(torch.rand(len(rows)) < 0.1, 10, data.train_labels[rows])
                optimizer.zero_grad()
                F.mse_loss(model(model.add_noise(clean[rows], noise, timestep), timestep, label), noise).backward()
                optimizer.step()
                scheduler.step()
    return model.eval()


@torch.no_grad()
def draw_digits(model: DigitsDiT, labels: Int[Tensor, " n"], *, seed: int = 0) -> Float[Tensor, "n 1 8 8"]:
    """Draws one digit per label, from noise to pixels between −1 and 1, without new noise on the way (DDIM).

    Example:
        >>> draw_digits(DigitsDiT(), torch.arange(10)).shape
        torch.Size([10, 1, 8, 8])
    """
    x = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    for step in range(STEPS - 1, -1, -1):
        share, before = model.share[step], model.share[step - 1] if step else torch.tensor(1.0)
        noise = model(x, torch.full((len(labels),), step), labels)
        clean = ((x - (1 - share).sqrt() * noise) / share.sqrt()).clamp(-1, 1)
        noise = (x - share.sqrt() * clean) / (1 - share).sqrt()
        x = before.sqrt() * clean + (1 - before).sqrt() * noise
    return x
