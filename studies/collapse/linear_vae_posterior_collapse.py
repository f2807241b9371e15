"""A linear variational autoencoder keeps exactly the directions whose variance exceeds the weighted noise, and drops the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import inscape as ix

PAPER = (
    "Dang, Tran, Nguyen & Ho, 'Beyond vanilla variational autoencoders: detecting posterior collapse in conditional and hierarchical "
    "variational autoencoders', ICLR 2024; Bonheme & Grześ, 'Be more active! Understanding the differences between mean and sampled "
    "representations of variational autoencoders', JMLR 2023"
)
CLAIM = (
    "A latent variable of a linear VAE collapses when the eigenvalue of the data that it would carry is at most β times the noise of the "
    "decoder; the collapsed variables, and only they, make means more correlated than samples."
)
SCALE = (
    "Gaussian data of 10 dimensions with known spectrum and the vanilla linear VAE, in place of conditional, hierarchical and deep ones."
)

LATENTS, NOISE = 8, 1.0
SPECTRUM = 6.0 * 0.62 ** np.arange(10)


def count_is_right(values: Any) -> bool:
    return values["largest error of the count of active units"] == 0


CHECKS = {
    "active units are the eigenvalues above the threshold, at every β": count_is_right,
    "the others are passive, none mixed": lambda v: v["largest error of the count of passive units"] == 0,
    "the rate falls as β grows": lambda v: v["smallest fall of the rate in nats"] > 0,
    "passive variables make means more correlated than samples": lambda v: v["gap of means and samples, some passive"] > 0.05,
    "active ones alone do not": lambda v: abs(v["gap of means and samples, none passive"]) < 0.05,
}
CONTROL_FAILS = "active units are the eigenvalues above the threshold, at every β"


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return _measured(seed, small, weighted=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same networks with the divergence left nearly out of the loss: nothing pulls a variable to the prior."""
    return _measured(seed, small, weighted=False)


def _measured(seed: int, small: bool, *, weighted: bool) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    X = torch.from_numpy((rng.standard_normal((2000, 10)) * np.sqrt(SPECTRUM)) @ basis.T)
    X = X - X.mean(0)
    eigenvalues = torch.linalg.eigvalsh(X.T @ X / len(X)).flip(0).numpy()
    found: dict[str, float] = {}
    errors, passive_errors, rates, gaps = [], [], [], {}
    for kept in (8, 3) if small else (8, 6, 5, 3, 1):
        # β halfway between two eigenvalues (of the smaller one that fits, where all of the latents are to stay).
        beta = float(np.sqrt(eigenvalues[kept - 1] * eigenvalues[kept])) / NOISE
        posterior = _trained(X, beta if weighted else 1e-3, seed, steps=2500 if small else 4000)
        active = float(ix.measures.active_units(posterior[:, :LATENTS]))
        passive = float(ix.measures.passive_units(posterior))
        rate = ix.measures.posterior_kl(posterior)
        gaps[kept] = float(ix.measures.mean_sampled_gap(posterior))
        errors.append(abs(active - kept))
        passive_errors.append(abs(passive - (LATENTS - kept)))
        rates.append(rate.value)
        found |= {f"active units where {kept} eigenvalues exceed the threshold": active, f"rate with {kept} above": rate.value}
        found |= {f"beta with {kept} above": beta}
    found |= {f"eigenvalue {i}": float(value) for i, value in enumerate(eigenvalues)}
    found |= {
        "largest error of the count of active units": max(errors),
        "largest error of the count of passive units": max(passive_errors),
        "smallest fall of the rate in nats": float(-np.diff(rates).max()),
        "gap of means and samples, none passive": gaps[8],
        "gap of means and samples, some passive": gaps[3],
    }
    return found


def _trained(X: torch.Tensor, beta: float, seed: int, steps: int) -> np.ndarray:
    """Means and log-variances [n, 2m] of a linear VAE; the loss is the exact expectation, so nothing is sampled."""
    generator = torch.Generator().manual_seed(seed)
    S = X.T @ X / len(X)
    encoder = (0.1 * torch.randn(LATENTS, 10, generator=generator, dtype=torch.float64)).requires_grad_()
    decoder = (0.1 * torch.randn(10, LATENTS, generator=generator, dtype=torch.float64)).requires_grad_()
    log_variance = torch.zeros(LATENTS, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([encoder, decoder, log_variance], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        variance = log_variance.exp()
        left = torch.eye(10, dtype=torch.float64) - decoder @ encoder
        error = torch.trace(left @ S @ left.T) + (decoder.square().sum(0) * variance).sum()
        divergence = torch.trace(encoder @ S @ encoder.T) + (variance - log_variance - 1).sum()
        (error / NOISE + beta * divergence).div(2).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        mean = X @ encoder.T
        return torch.cat([mean, log_variance.expand_as(mean)], 1).numpy()


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    kept = sorted(int(name.split()[3]) for name in values if name.startswith("active units"))
    betas = [values[f"beta with {k} above"] for k in kept]
    spectrum = [values[f"eigenvalue {i}"] for i in range(10)]
    left.semilogy(range(1, 11), spectrum, "o-", color="#0072B2", label="eigenvalue of the data")
    for beta in betas:
        left.axhline(beta, color="#6f6e69", linewidth=0.8, linestyle="--")
    left.plot([], [], color="#6f6e69", linewidth=0.8, linestyle="--", label="β × noise, each a training")
    left.set(xlabel="direction", title="Thresholds between eigenvalues")
    left.legend(frameon=False, fontsize=8)
    right.plot([0, LATENTS], [0, LATENTS], color="#6f6e69", linewidth=0.8, label="theory")
    right.plot(
        kept, [values[f"active units where {k} eigenvalues exceed the threshold"] for k in kept], "o", color="#D55E00", label="trained"
    )
    right.set(xlabel="eigenvalues above the threshold", ylabel="active units", title=f"Active of {LATENTS} latent variables")
    right.legend(frameon=False, fontsize=8)
    return drawn
