"""The map of an autoencoder, run again and again, comes to rest at what it memorized; with more to learn from, no longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import inscape as ix

PAPER = "Fumero, Moschella, Rodolà & Locatello, 'Navigating the latent space dynamics of neural models', 2025"
CLAIM = (
    "An autoencoder defines a vector field on its latent space; its attractors are training examples where it memorizes and less so the "
    "more it generalizes, and how inputs move in the field tells those that are unlike the training data."
)
SCALE = "Fully connected autoencoders with 8 latent variables on 8 × 8 digits, 10 to 640 examples, noise on the latents while training."

LATENTS, WIDTH, NOISE, NEAR = 8, 256, 0.3, 0.05
SIZES = (10, 40, 160, 640)

CHECKS = {
    "few examples become attractors": lambda v: v["examples that are attractors, of 10"] >= 0.5,
    "these attractors are stable": lambda v: 0 < v["largest radius at an example, of 10"] < 1,
    "of more examples a smaller share does": lambda v: (
        v["examples that are attractors, of 10"] > v["examples that are attractors, of 640"] + 0.3
    ),
    "more examples generalize better": lambda v: v["held-out error, of 640"] < 0.5 * v["held-out error, of 10"],
    "inputs unlike digits move further": lambda v: v["area under the curve for scrambled digits, of 640"] > 0.8,
}
CONTROL_FAILS = "few examples become attractors"


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return _measured(seed, small, trained=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same networks before training."""
    return _measured(seed, small, trained=False)


def _measured(seed: int, small: bool, *, trained: bool) -> dict[str, float]:
    data = ix.zoo.digits(seed=seed)
    held_out = data.images[:100].flatten(1)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
    found: dict[str, float] = {}
    for size in (10, 640) if small else SIZES:
        examples = data.train_images[:size].flatten(1)
        encode, decode, loss = _autoencoder(examples, seed, (500 if small and size > 10 else 1500) if trained else 0)
        with torch.no_grad():
            latents, starts, scrambled = encode(examples), encode(held_out), encode(held_out[:, order])
            error = float((decode(starts) - held_out).square().sum(1).mean())
        field: Any = ix.measures.latent_vector_field(
            starts, lambda z, e=encode, d=decode: e(d(z)), most=200 if small else 500, tolerance=1e-5
        )
        other: Any = ix.measures.latent_vector_field(scrambled, lambda z, e=encode, d=decode: e(d(z)), most=1)
        room = NEAR * float((starts - starts.mean(0)).norm(dim=1).square().mean().sqrt())
        apart = torch.cdist(latents, field.attractors) if field.value else torch.full((size, 1), torch.inf)
        stable = [radius for radius, near in zip(field.radius, apart.min(0).values < room, strict=False) if near]
        found |= {
            f"attractors, of {size}": field.value,
            f"examples that are attractors, of {size}": float((apart.min(1).values < room).double().mean()),
            f"largest radius at an example, of {size}": max(stable, default=0.0),
            f"starts at rest, of {size}": float((field.basin >= 0).double().mean()),
            f"training error, of {size}": loss,
            f"held-out error, of {size}": error,
            f"area under the curve for scrambled digits, of {size}": _area(field.residual, other.residual),
        }
    return found


def _area(inside: Tensor, outside: Tensor) -> float:
    """How often an input of the second kind moves further with its first step than one of the first."""
    return float((outside[:, None] > inside).double().mean() + 0.5 * (outside[:, None] == inside).double().mean())


def _autoencoder(examples: Tensor, seed: int, steps: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], float]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encode, decode = _layers(64, LATENTS), _layers(LATENTS, 64)
    parameters = [*encode.parameters(), *decode.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), eta_min=5e-5)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = examples[torch.randint(0, len(examples), (128,), generator=generator)] if len(examples) > 128 else examples
        optimizer.zero_grad()
        latents = encode(batch)
        latents = latents + NOISE * torch.randn(latents.shape, generator=generator)
        (decode(latents) - batch).square().sum(1).mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        loss = float((decode(encode(examples)) - examples).square().sum(1).mean())
    return encode.requires_grad_(False), decode.requires_grad_(False), loss


def _layers(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, outputs))


def figure(values: dict[str, float]) -> Figure:
    sizes = sorted({int(name.rsplit(" ", 1)[1]) for name in values})
    drawn = Figure(figsize=(9, 3), layout="constrained")
    panels = drawn.subplots(1, 3)
    lines = (
        ("examples that are attractors", "share of training examples", "Examples that are attractors"),
        ("held-out error", "squared error per image", "Reconstruction"),
        ("area under the curve for scrambled digits", "area under the curve", "Scrambled digits move further"),
    )
    for panel, (name, label, title) in zip(panels, lines, strict=True):
        panel.plot(
            sizes, [values[f"{name}, of {size}"] for size in sizes], "o-", color="#0072B2", label="held out" if "error" in name else None
        )
        if "error" in name:
            panel.plot(sizes, [values[f"training error, of {size}"] for size in sizes], "o--", color="#D55E00", label="training")
            panel.legend(frameon=False, fontsize=8)
        panel.set(xscale="log", xlabel="training examples", ylabel=label, title=title)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.set_ylim(bottom=0, top=1.02 if "error" not in name else None)
    return drawn
