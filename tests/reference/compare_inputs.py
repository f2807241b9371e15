"""Seeded inputs behind compare.json (numpy.random.RandomState, the frozen legacy stream). Rows are stimuli."""

import numpy as np


def pair(seed=0, n=120, dx=30, dy=24, k=10):
    """Correlated pair with offsets: X linear in Z, Y nonlinear in Z."""
    r = np.random.RandomState(seed)
    Z = r.randn(n, k)
    X = Z @ r.randn(k, dx) + 0.5 * r.randn(n, dx) + 1.5
    Y = np.tanh(Z @ r.randn(k, dy) / 2.0) + 0.3 * r.randn(n, dy) - 0.25
    return X, Y


def wide(seed=1, n=40, dx=200, dy=160):
    """Independent Gaussians with n < d: true CKA is 0, the biased estimate is near 1."""
    r = np.random.RandomState(seed)
    return r.randn(n, dx), r.randn(n, dy)


def square(seed=2, n=100, d=12):
    """Equal width; Y is X rotated, permuted noise added: for Procrustes / permutation / netrep."""
    r = np.random.RandomState(seed)
    X = r.randn(n, d) * np.linspace(2.0, 0.2, d)
    Q = np.linalg.qr(r.randn(d, d))[0]
    return X, X @ Q + 0.2 * r.randn(n, d)


def stochastic(seed=3, m=8, rep=6, d=5):
    """(images, repeats, neurons) pair, plus per-image mean and covariance."""
    r = np.random.RandomState(seed)
    mu = r.randn(m, 1, d) * 2.0
    L = np.tril(r.randn(m, d, d)) * 0.4 + 0.5 * np.eye(d)
    A = mu + np.einsum("mij,mrj->mri", L, r.randn(m, rep, d))
    Q = np.linalg.qr(r.randn(d, d))[0]
    B = (mu + 0.8 * r.randn(m, 1, d) + 1.7 * np.einsum("mij,mrj->mri", L, r.randn(m, rep, d))) @ Q

    def cov(T):
        return np.stack([np.cov(t.T) + 0.1 * np.eye(d) for t in T])

    return A, B, (A.mean(1), cov(A)), (B.mean(1), cov(B))


def runs(seed=4, c=10, n_run=4, p=16):
    """Conditions x runs, rows in run-major order: pattern + noise (Gaussian) and Poisson counts."""
    r = np.random.RandomState(seed)
    mu = r.randn(c, p)
    G = np.concatenate([mu + 0.7 * r.randn(c, p) for _ in range(n_run)])
    lam = np.exp(0.5 * mu + 1.0)
    P = np.concatenate([r.poisson(lam) for _ in range(n_run)]).astype(float)
    cond = np.tile(np.arange(c), n_run)
    run = np.repeat(np.arange(n_run), c)
    W = r.randn(p, p)
    prec = np.linalg.inv(W @ W.T / p + np.eye(p))
    return G, P, cond, run, prec


def rdm_family(seed=5, s=8, c=15, n_model=4, p=20):
    """s subject RDMs and n_model model RDMs (squared euclidean / p vectors, upper triangle, row-major)."""
    r = np.random.RandomState(seed)
    base = r.randn(c, p)
    iu = np.triu_indices(c, 1)

    def rdm(M):
        K = M @ M.T
        d = np.diag(K)
        return ((d[:, None] + d[None] - 2 * K) / p)[iu]

    data = np.stack([rdm(base + 0.8 * r.randn(c, p)) for _ in range(s)])
    models = np.stack([rdm(base + a * r.randn(c, p)) for a in np.linspace(0.5, 3.0, n_model)])
    return data, models


def tied(v, levels=4):
    """Quantised copy of RDM vectors (many ties)."""
    q = np.quantile(v, np.linspace(0, 1, levels + 1)[1:-1])
    return np.digitize(v, q).astype(float)


def resamples(seed=7, draws=20, subjects=8, patterns=15):
    """Indices of bootstrap draws of subjects and of patterns."""
    r = np.random.RandomState(seed)
    return r.randint(0, subjects, (draws, subjects)), r.randint(0, patterns, (draws, patterns))
