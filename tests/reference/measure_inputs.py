"""Seeded inputs behind measure.json: manifolds of known dimension, power-law spectra, simplex-ETF classes, a noisy circle."""

import math

import numpy as np
from scipy.fft import idct


def embed(Z, D):
    """Isometric embedding R^d -> R^D: zero-pad, then orthonormal inverse DCT (no LAPACK, so portable)."""
    P = np.zeros((len(Z), D))
    P[:, : Z.shape[1]] = Z
    return idct(P, axis=1, norm="ortho")


def manifolds(n=5000, D=512):
    out = {}
    for d in (2, 5, 10, 20):
        out[f"cube_d{d}"] = (d, embed(np.random.default_rng(100 + d).random((n, d)), D))
    g = np.random.default_rng(7).standard_normal((n, 11))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    out["sphere_d10"] = (10, embed(g, D))
    r = np.random.default_rng(8)
    t = 1.5 * np.pi * (1 + 2 * r.random(n))
    h = 21 * r.random(n)
    out["swissroll_d2"] = (2, embed(np.c_[t * np.cos(t), h, t * np.sin(t)], D))
    b = out["cube_d5"][1]
    out["cube_d5_noise1e-2"] = (5, b + 1e-2 * np.random.default_rng(9).standard_normal(b.shape))
    return out


def powerlaw(alpha, n=2000, d=256):
    z = np.random.default_rng(int(1000 * alpha) + 1).standard_normal((n, d))
    return z * np.arange(1, d + 1) ** (-alpha / 2.0)


def etf_classes(C=10, D=64, per=100, sigma=0.1, seed=11):
    M = embed(math.sqrt(C / (C - 1)) * (np.eye(C) - 1.0 / C), D)
    y = np.repeat(np.arange(C), per)
    return M[y] + sigma / math.sqrt(D) * np.random.default_rng(seed).standard_normal((C * per, D)) + 0.3, y, M


def circle(n, noise=0.05, D=16, seed=5):
    r = np.random.default_rng(seed)
    t = 2 * np.pi * r.random(n)
    return embed(np.c_[np.cos(t), np.sin(t)], D) + noise / math.sqrt(D) * r.standard_normal((n, D))
