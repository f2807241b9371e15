"""Ground truth, seeds, language models and labels, each against numbers computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, minimize

import inscape as ix
from inscape.dictionaries import Dictionary
from inscape.dictionaries.probing import logistic
from inscape.dictionaries.truth import area
from inscape.errors import DegenerateInputError, DictionaryError, StimuliError, StoreMismatchError
from tests.unit.dictionaries.scene import features, sparse_rows

TRUE = features(12, 8, seed=3)


def made_of(directions: np.ndarray) -> Dictionary:
    """A dictionary with these directions, which reads along them."""
    W = torch.from_numpy(directions)
    tensors = {"W_enc": W.T, "W_dec": W, "b_enc": torch.zeros(len(W)).double(), "b_dec": torch.zeros(W.shape[1]).double()}
    return Dictionary(ix.dictionaries.ReLU(width=len(W)), tensors)


def test_recovery_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    W = np.concatenate([TRUE[:9] + 0.1 * rng.standard_normal((9, 8)), rng.standard_normal((6, 8))])
    found = ix.dictionaries.recovery(made_of(W), TRUE)
    pairs = TRUE @ (W / np.linalg.norm(W, axis=1, keepdims=True)).T
    assert found.value(measure="mmcs") == pytest.approx(pairs.max(1).mean())
    assert found.value(measure="mmcs_reverse") == pytest.approx(pairs.max(0).mean())
    assert found.value(measure="recovered") == pytest.approx((pairs.max(1) >= 0.9).mean())
    assert found.value(measure="hungarian_cosine") == pytest.approx(pairs[linear_sum_assignment(-pairs)].mean())
    row = found.where(measure="mmcs").rows()[0]
    assert row["low"] < row["value"] < row["high"] and row["interval_method"] == "jackknife(12)"
    with pytest.raises(DictionaryError, match="features have 3 units"):
        ix.dictionaries.recovery(made_of(W), TRUE[:, :3])
    with pytest.raises(DictionaryError, match="belong together"):
        ix.dictionaries.recovery(made_of(W), TRUE, rows=TRUE)


def test_firing_is_told_by_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.3
    wins = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert area(scores, positive) == pytest.approx(np.mean(wins))
    eye = np.eye(6)
    codes = rng.uniform(0.5, 1, (200, 6)) * (rng.random((200, 6)) < 0.3)
    found = ix.dictionaries.recovery(made_of(eye), eye, rows=codes @ eye, codes=codes)
    assert found.value(measure="firing_auroc") == pytest.approx(1.0)
    blind = ix.dictionaries.recovery(made_of(eye), eye, rows=rng.permutation(codes @ eye), codes=codes)
    assert blind.value(measure="firing_auroc") == pytest.approx(0.5, abs=0.1)
    with pytest.raises(DictionaryError, match=r"codes have shape \(200, 5\), expected \(200, 6\)"):
        ix.dictionaries.recovery(made_of(eye), eye, rows=codes @ eye, codes=codes[:, :5])
    with pytest.raises(DegenerateInputError, match="active in some rows"):
        ix.dictionaries.recovery(made_of(eye), eye, rows=codes @ eye, codes=np.ones_like(codes))


def test_stability_of_seeds() -> None:
    rng = np.random.default_rng(2)
    other = np.concatenate([TRUE[:6], rng.standard_normal((10, 8))])
    found = ix.dictionaries.stability([made_of(TRUE), made_of(other)], at=0.95)
    pairs = TRUE @ (other / np.linalg.norm(other, axis=1, keepdims=True)).T
    assert found.value(measure="mmcs", label="0 in 1") == pytest.approx(pairs.max(1).mean())
    assert found.value(measure="mmcs", label="1 in 0") == pytest.approx(pairs.max(0).mean())
    assert found.value(measure="shared", label="0 in 1") == pytest.approx((pairs.max(1) >= 0.95).mean())
    with pytest.raises(DictionaryError, match="give two or more, got 1"):
        ix.dictionaries.stability([made_of(TRUE)])
    with pytest.raises(DictionaryError, match="write 8 and 4 units"):
        ix.dictionaries.stability([made_of(TRUE), made_of(TRUE[:, :4])])


@pytest.fixture(scope="module")
def net() -> ix.zoo.GPT:
    torch.manual_seed(0)
    return ix.zoo.GPT(vocab=20, d=16, layers=2, heads=2, context=12)


IDS = np.random.default_rng(4).integers(0, 20, (20, 9))


def test_loss_recovered_against_a_hook_by_hand(net: ix.zoo.GPT) -> None:
    site = "blocks.0.resid_post"
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.8)  # predictions that differ
    rows = ix.capture(net, IDS, site, tokens="all")[site]
    sae = ix.decompose(rows, ix.dictionaries.TopK(width=24, k=3), rows=4096)
    found = ix.dictionaries.loss_recovered(sae, net, IDS, batch=7)

    ids = torch.from_numpy(IDS)
    values = rows.torch().double()

    def logits(change: object = None) -> torch.Tensor:
        handle = net.blocks[0].register_forward_hook(lambda m, a, out: change(out) if change else None)
        with torch.no_grad():
            found = net(ids).double().log_softmax(-1)[:, :-1]
        handle.remove()
        return found

    def ce(p: torch.Tensor) -> float:
        return float(-p.gather(2, ids[:, 1:, None]).mean())

    plain = logits()
    runs = {
        "sae": logits(lambda out: sae.reconstruct(out.reshape(-1, 16)).view(out.shape)),
        "zero": logits(torch.zeros_like),
        "mean": logits(lambda out: values.mean(0).float().expand_as(out)),
    }
    kl = {name: float((plain.exp() * (plain - run)).sum(-1).mean()) for name, run in runs.items()}
    assert found.value(measure="ce") == pytest.approx(ce(plain), rel=1e-5)
    assert found.value(measure="ce_reconstructed") == pytest.approx(ce(runs["sae"]), rel=1e-5)
    assert found.value(measure="kl") == pytest.approx(kl["sae"], rel=1e-3)
    for name in ("zero", "mean"):
        recovered = (ce(runs[name]) - ce(runs["sae"])) / (ce(runs[name]) - ce(plain))
        assert found.value(measure=f"ce_recovered_{name}") == pytest.approx(recovered, rel=1e-3)
        assert found.value(measure=f"kl_recovered_{name}") == pytest.approx(1 - kl["sae"] / kl[name], rel=1e-3)
    assert found.unique("n") == [20 * 8]
    assert found.where(measure="ce").rows()[0]["interval_method"] == "jackknife(20)"
    with pytest.raises(StimuliError, match="no stimulus has two tokens"):
        ix.dictionaries.loss_recovered(sae, net, IDS[:, :1])
    with pytest.raises(DictionaryError, match="give site="):
        ix.dictionaries.loss_recovered(made_of(TRUE), net, IDS)
    with pytest.raises(DictionaryError, match="has 16 units, the dictionary reads 8"):
        ix.dictionaries.loss_recovered(made_of(TRUE), net, IDS, site=site)


def test_the_logistic_regression_is_at_the_minimum() -> None:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((80, 3)) * [1, 10, 0.1] + 2
    y = X[:, 0] - X[:, 1] / 10 + rng.standard_normal(80) > 1.5

    def loss(w: np.ndarray) -> float:
        margin, scaled = X @ w[:-1] + w[-1], w[:-1] * X.std(0)
        weight = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean())) / 80
        return float((weight * (np.logaddexp(0, margin) - y * margin)).sum() + 0.5e-3 * (scaled**2).sum())

    w = logistic(X, y)
    best = minimize(loss, w * 0.9, method="BFGS").fun
    assert loss(w) <= best + 1e-7


def test_sparse_probing_finds_the_feature_that_tells_a_class() -> None:
    rng = np.random.default_rng(6)
    codes = rng.uniform(0.5, 1, (600, 8)) * (rng.random((600, 8)) < 0.3)
    labels = np.where(codes[:, 2] > 0, "yes", "no")
    sae = made_of(np.eye(8))
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    turned = Dictionary(sae.recipe, {**sae.tensors, "W_enc": torch.from_numpy(rotation.T), "W_dec": torch.from_numpy(rotation)})
    found = ix.dictionaries.sparse_probing(turned, codes @ rotation, labels, k=[1, 3])
    assert found.value(measure="probe_accuracy", kind="features", at=1) == pytest.approx(1.0)
    assert found.value(measure="probe_accuracy", kind="units", at=1) < 0.95
    assert found.value(measure="probe_accuracy", kind="all units") > 0.9
    assert found.unique("n") == [120]
    with pytest.raises(DegenerateInputError, match="at least two classes"):
        ix.dictionaries.sparse_probing(turned, codes, ["a"] * 600)
    with pytest.raises(DegenerateInputError, match="label 'rare' is missing"):
        ix.dictionaries.sparse_probing(turned, codes, ["rare"] + ["a"] * 599)
    with pytest.raises(StoreMismatchError, match="labels has 3 entries for 600 rows"):
        ix.dictionaries.sparse_probing(turned, codes, ["a"] * 3)


def test_the_quality_of_a_small_training_is_what_recovery_says() -> None:
    sae = ix.decompose(sparse_rows(20_000), ix.dictionaries.TopK(width=64, k=3), rows=100_000)
    assert ix.dictionaries.recovery(sae, features()).value(measure="mmcs") > 0.95
