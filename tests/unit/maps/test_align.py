"""Maps between spaces against SciPy, scikit-learn and arithmetic written out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LinearRegression, Ridge

import inscape as ix
from inscape import maps
from inscape.errors import DegenerateInputError, MapError, StoreCorruptError, StoreMismatchError, TooFewStimuliError

RNG = np.random.default_rng(0)
N, P, Q = 160, 7, 5
X = RNG.standard_normal((N, P)) + 3
Y = X @ RNG.standard_normal((P, Q)) + 0.5 * RNG.standard_normal((N, Q)) - 1
NEW = RNG.standard_normal((20, P))
TURN = np.linalg.qr(RNG.standard_normal((P, P)))[0]


def centered(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(0)


def test_the_methods_are_those_of_the_files() -> None:
    assert list(maps.registered()) == ["affine", "orthogonal", "permutation", "relative", "ridge"]
    assert maps.registered()["ridge"].options["folds"] == 5


def test_orthogonal_equals_scipy() -> None:
    B = X @ TURN + 0.1 * RNG.standard_normal((N, P))
    fitted = ix.align(X, B, holdout=0)
    R, total = orthogonal_procrustes(centered(X), centered(B))
    assert np.allclose(fitted.transform(NEW), (NEW - X.mean(0)) @ R + B.mean(0), atol=1e-10)
    scaled = ix.align(X, B, "orthogonal", holdout=0, scale=True)
    assert scaled.info["scale"] == pytest.approx(total / (centered(X) ** 2).sum(), abs=1e-10)
    assert np.allclose(scaled.inverse(scaled.transform(NEW)), NEW, atol=1e-10)


def test_orthogonal_between_widths_turns_the_narrower_space() -> None:
    fitted = ix.align(X, Y, holdout=0)
    weight = fitted.tensors["weight"].numpy()
    assert weight.shape == (P, Q) and np.allclose(weight.T @ weight, np.eye(Q), atol=1e-12)
    U, _, Vh = np.linalg.svd(centered(X).T @ centered(Y), full_matrices=False)
    assert np.allclose(weight, U @ Vh, atol=1e-10)


def test_affine_equals_scikit_learn_both_ways() -> None:
    fitted = ix.align(X, Y, "affine", holdout=0)
    assert np.allclose(fitted.transform(NEW), LinearRegression().fit(X, Y).predict(NEW), atol=1e-9)
    assert np.allclose(fitted.inverse(Y), LinearRegression().fit(Y, X).predict(Y), atol=1e-9)


@pytest.mark.parametrize("width", [P, 200])
def test_ridge_equals_scikit_learn_at_the_chosen_penalty(width: int) -> None:
    rows = RNG.standard_normal((N, width))
    goal = rows[:, :3] + 0.3 * RNG.standard_normal((N, 3))
    fitted = ix.align(rows, goal, "ridge", holdout=0, alphas=(0.03, 0.3))
    values = np.linalg.svd(centered(rows), compute_uv=False) ** 2
    penalty = fitted.info["alpha"] * values[values > 1e-9].mean()
    assert fitted.info["alpha"] in (0.03, 0.3)
    assert np.allclose(fitted.transform(rows), Ridge(alpha=penalty).fit(rows, goal).predict(rows), atol=1e-8)


def test_permutation_equals_an_assignment_by_scipy() -> None:
    order = RNG.permutation(P)
    B = X[:, order] + 0.1 * RNG.standard_normal((N, P))
    fitted = ix.align(X, B, "permutation", holdout=0)
    rows, columns = linear_sum_assignment(centered(X).T @ centered(B), maximize=True)
    assert fitted.tensors["matched"].tolist() == np.stack([rows, columns], 1).tolist()
    assert np.allclose(fitted.transform(NEW), (NEW - X.mean(0))[:, order] + B.mean(0), atol=1e-12)


def test_relative_coordinates_are_cosines_with_anchors() -> None:
    fitted = ix.align(X, Y, "relative", holdout=0, anchors=30, seed=3)
    chosen = np.sort(np.random.default_rng(3).permutation(N)[:30])
    for of, rows, new in (("a", X, NEW), ("b", Y, Y[:9])):
        anchors, moved = rows[chosen] - rows.mean(0), new - rows.mean(0)
        expected = moved @ anchors.T / np.linalg.norm(moved, axis=1)[:, None] / np.linalg.norm(anchors, axis=1)
        assert np.allclose(fitted.relative(new, of=of), expected, atol=1e-10)
    # b turned and stretched: the same coordinates without any fit, and the exact map.
    B = 3 * X @ TURN + 7
    turned = ix.align(X, B, "relative", holdout=0)
    assert np.allclose(turned.relative(X), turned.relative(B, of="b"), atol=1e-10)
    assert np.allclose(turned.transform(NEW), 3 * NEW @ TURN + 7, atol=1e-9)


def test_scores_are_those_of_the_rows_that_were_held_out() -> None:
    fitted = ix.align(X, Y, "affine", holdout=0.25, seed=4)
    out = np.zeros(N, dtype=bool)
    out[np.random.default_rng(4).permutation(N)[: N // 4]] = True
    model = LinearRegression().fit(X[~out], Y[~out])
    error, moved = Y[out] - model.predict(X[out]), Y[out] - Y[~out].mean(0)
    guess = moved - error
    cosine = (moved * guess).sum(1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(guess, axis=1)
    result = fitted.score()
    assert result.value(measure="map_r2") == pytest.approx(1 - (error**2).sum() / (moved**2).sum(), abs=1e-10)
    assert result.value(measure="map_cosine") == pytest.approx(cosine.mean(), abs=1e-10)
    assert fitted.score(X[out], Y[out]).value(measure="map_r2") == pytest.approx(result.value(measure="map_r2"), abs=1e-12)
    row = result.rows()[0]
    assert row["low"] < row["value"] < row["high"] <= 1 and row["interval_method"] == "jackknife(32)" and row["n"] == out.sum()


@pytest.mark.parametrize("csls", [False, True])
def test_retrieval_equals_full_sorting(csls: bool) -> None:
    fitted = ix.align(X, Y, "affine")
    A, B = RNG.standard_normal((40, P)) + 3, RNG.standard_normal((40, Q)) * 4
    middle = fitted.tensors["mean_b"].numpy()
    moved = fitted.transform(A).numpy() - middle
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (moved, B - middle))
    near = first @ second.T
    if csls:
        near = 2 * near - np.sort(near, 1)[:, -10:].mean(1)[:, None] - np.sort(near, 0)[-10:].mean(0)
    place = (near > near.diagonal()[:, None]).sum(1)
    result = fitted.retrieval((1, 5), A, B, csls=csls)
    for k in (1, 5):
        assert result.value(at=k) == pytest.approx((place < k).mean(), abs=1e-12)
    assert result.column("null_mean") == [1 / 40, 5 / 40]


def test_ties_count_by_the_chance_that_they_fall_right() -> None:
    B = np.repeat(np.eye(4), 2, axis=0)  # each row twice: one of two is the partner
    rows = np.concatenate([B, -B])
    fitted = ix.align(rows, rows, holdout=0)
    assert fitted.retrieval((1, 2), B, B, csls=False, interval=None).column("value") == pytest.approx([0.5, 1.0])


def test_hits_without_a_miss_have_an_interval() -> None:
    rows = RNG.standard_normal((50, 4))
    row = ix.align(rows, rows, holdout=0).retrieval(1, rows[:20], rows[:20]).rows()[0]
    assert row["value"] == row["high"] == 1 and row["interval_method"] == "binomial"
    assert row["low"] == pytest.approx(0.025 ** (1 / 20), abs=1e-12)  # Clopper and Pearson for 20 of 20


def test_views_are_joined_by_stimulus_and_groups_stay_together() -> None:
    names = [f"s{i}" for i in range(N)]
    order = RNG.permutation(N)
    a = ix.Store.from_arrays({"u": X}, stimuli={"stimulus": names, "pair": np.arange(N) // 2}, system="one")
    b = ix.Store.from_arrays({"v": Y[order]}, stimuli={"stimulus": [names[i] for i in order]}, system="two")
    fitted = ix.align(a, b["v"], "affine", holdout=0)
    assert np.allclose(fitted.transform(a), LinearRegression().fit(X, Y).predict(X), atol=1e-9)
    assert fitted.info["a"] == "one/u" and repr(fitted) == "Map(affine one/u → two/v: 7 → 5 units, fitted on 160 pairs)"
    cut = ix.align(a, b, "affine", groups="pair")
    assert cut.info["n_held_out"] == 32 and cut._held is not None
    assert all(np.bincount(cut._held[2])[np.unique(cut._held[2])] == 2)


def test_one_map_serves_another_modality_about_its_own_means() -> None:
    images, texts = RNG.standard_normal((90, P)), RNG.standard_normal((60, P)) + 5
    fitted = ix.align(images, images @ TURN + 1)
    other = fitted.recentered(texts, texts @ TURN - 4)
    assert fitted.score(texts, texts @ TURN - 4).value(measure="map_r2") < 0.5
    assert other.score(texts, texts @ TURN - 4).value(measure="map_r2") == pytest.approx(1, abs=1e-10)


def test_saved_and_loaded_is_the_same(tmp_path) -> None:
    fitted = ix.align(X, Y, "relative")
    again = maps.Map.load(fitted.save(tmp_path / "m"))
    assert torch.equal(again.transform(NEW), fitted.transform(NEW)) and again.info == fitted.info
    assert torch.equal(again.relative(NEW), fitted.relative(NEW)) and again.method == "relative"
    with pytest.raises(MapError, match="no rows were held out"):
        again.score()
    told = json.loads((tmp_path / "m" / "map.json").read_text())
    (tmp_path / "m" / "map.json").write_text(json.dumps({**told, "format_version": 99}))
    with pytest.raises(MapError, match="format 99"):
        maps.Map.load(tmp_path / "m")
    (tmp_path / "m" / "map.json").write_text("{")
    with pytest.raises(StoreCorruptError):
        maps.Map.load(tmp_path / "m")
    with pytest.raises(MapError, match="holds no map"):
        maps.Map.load(tmp_path)


def test_half_precision_and_streams_give_the_same_map() -> None:
    store = ix.Store.from_arrays({"x": X.astype(np.float32), "y": Y.astype(np.float32)})
    fitted = ix.align(store["x"], store["y"], "affine", holdout=0)
    assert fitted.transform(store["x"]).dtype == torch.float32
    assert np.allclose(fitted.transform(store["x"]), LinearRegression().fit(X, Y).predict(X), atol=1e-3)


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "text"),
    [
        (X, Y[:-1], {}, StoreMismatchError, r"160 rows .* b has 159"),
        (X, Y, {"method": "orthogonl"}, MapError, "'orthogonal'"),
        (X, Y, {"anchors": 3}, MapError, "method 'orthogonal' has no option 'anchors'; its options: scale"),
        (X, Y, {"holdout": 1.0}, MapError, "holdout=1.0"),
        (X[:2], Y[:2], {"holdout": 0}, TooFewStimuliError, "2 of 2 pairs"),
        (np.ones((9, 2)), Y[:9], {}, DegenerateInputError, "rows of a .* are equal"),
        (X * np.nan, Y, {}, DegenerateInputError, "NaN"),
        (X[:7], Y[:7], {"method": "affine", "holdout": 0}, TooFewStimuliError, "fits anything"),
        (X, Y, {"method": "ridge", "alphas": (0.0,)}, DegenerateInputError, "positive"),
        (X, Y, {"method": "relative", "anchors": 999}, MapError, "anchors=999 out of 128"),
    ],
)
def test_what_cannot_be_mapped_is_said(a, b, options, error, text) -> None:
    with pytest.raises(error, match=text):
        ix.align(a, b, **options)


def test_questions_that_a_map_cannot_answer() -> None:
    fitted = ix.align(X, Y)
    with pytest.raises(MapError, match=r"shape \(160, 5\), but this map's space a has 7 units"):
        fitted.transform(Y)
    with pytest.raises(MapError, match="space b has 5 units"):
        fitted.score(X, X)
    with pytest.raises(MapError, match="has no anchors"):
        fitted.relative(X)
    with pytest.raises(MapError, match="rows of both spaces"):
        fitted.score(X)
    with pytest.raises(MapError, match="at least 1"):
        fitted.retrieval(0)
    with pytest.raises(MapError, match="mean_b has shape"):
        maps.Map("own", {"weight": torch.eye(2), "back": torch.eye(2), "mean_a": torch.zeros(2), "mean_b": torch.zeros(3)})
    with pytest.raises(MapError, match="is missing"):
        maps.Map("own", {"weight": torch.eye(2)})


def test_results_have_a_figure_and_a_section() -> None:
    from inscape.reporting.section import render

    fitted = ix.align(X, Y, "affine")
    both = ix.Result.merge([fitted.score(), fitted.retrieval(), ix.align(X, Y).retrieval()])
    figure = both.plot()
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["retrieval", "map_r2", "map_cosine"]
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 3
    section = render(both, "r1")
    assert "The affine map explains" in section.findings[0].text and "among the 1 nearest" in section.findings[1].text
    assert "<svg" in section.body
