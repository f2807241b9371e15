"""RSA inference: draw by draw against rsatoolbox, against explicit matrices, and against what is true by construction."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import inscape as ix
from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.rsa import RDMs, interpolated, selected, weighted
from inscape.rsa.evaluation import Draws, Fixed
from inscape.rsa.flexible import Fitted, Member
from inscape.rsa.inference import Target, variance
from inscape.rsa.missing import masked_ceiling, masked_scores
from inscape.rsa.quadratic import inner_products

REFERENCE = Path(__file__).parents[2] / "reference"
_spec = importlib.util.spec_from_file_location("compare_inputs", REFERENCE / "compare_inputs.py")
assert _spec is not None and _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)

PEER: dict[str, Any] = json.loads((REFERENCE / "rsa.json").read_text())
OLD: dict[str, Any] = {k: v["value"] for k, v in json.loads((REFERENCE / "compare.json").read_text())["values"].items()}
DATA, MODELS = inputs.rdm_family()
COPIES, COUNTS = (
    np.stack([np.bincount(one, minlength=size) for one in side]).astype(float)
    for side, size in zip(inputs.resamples(), (8, 15), strict=True)
)
NAMES = {"cosine": "rsa_cosine", "corr": "rsa_corr", "spearman": "rsa_spearman", "rho-a": "rsa_rho_a", "tau-a": "rsa_tau_a"}
WHITE = {"cosine_cov": "rsa_cosine_whitened", "corr_cov": "rsa_corr_whitened"}
ALL = [*NAMES.values(), *WHITE.values()]
SUBJECTS, FOUR = RDMs(DATA), RDMs(MODELS, subjects=["a", "b", "c", "d"])


def world(seed: int = 0, stimuli: int = 20, subjects: int = 6, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Patterns of a true model [n, 5], and those of subjects with voxels of their own."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((stimuli, 5))
    shown = [truth @ rng.standard_normal((5, 30)) + noise * rng.standard_normal((stimuli, 30)) for _ in range(subjects)]
    return truth, np.stack(shown)


# ---- draws -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [*NAMES, *WHITE])
def test_draws_equal_rsatoolbox_for_given_indices(peer: str) -> None:
    ours = Fixed(MODELS, DATA, 15, {**NAMES, **WHITE}[peer]).draws(COUNTS[:6], COPIES[:6])
    theirs = np.array(PEER[f"draws/{peer}"]).reshape(6, 3, 6)
    for kind, values in enumerate(ours):
        assert np.abs(values[:, :4] - theirs[:, kind, :4]).max() < 1e-10
        if peer in NAMES:
            assert np.abs(values[:, 4:] - theirs[:, kind, 4:]).max() < 1e-10
        elif kind == 2:
            # The peer pools without whitening; the pool that fits the measure is more similar to all, where all count once.
            assert (values[:, 5] >= theirs[:, kind, 5] - 1e-12).all()


@pytest.mark.parametrize("peer", [*NAMES, "cosine_cov"])
def test_values_and_ceilings_equal_rsatoolbox(peer: str) -> None:
    scores, ceiling = Fixed(MODELS, DATA, 15, {**NAMES, **WHITE}[peer]).point()
    assert scores.mean(1) == pytest.approx(np.array(OLD[f"rsatoolbox/eval_fixed/{peer}"][:4]), abs=1e-8)
    assert ceiling == pytest.approx(np.array(OLD[f"rsatoolbox/noise_ceiling/boot/{peer}"]), abs=1e-8 if peer in NAMES else 1e-4)


def test_whitened_products_under_draws_are_the_explicit_inverse() -> None:
    counts = COUNTS[2]
    drawn = np.repeat(np.arange(15), counts.astype(int))
    pairs = [(a, b) for a in range(15) for b in range(a + 1, 15) if drawn[a] != drawn[b]]
    contrasts = np.array([np.eye(15)[a] - np.eye(15)[b] for a, b in pairs])
    V = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    squares = RDMs(np.concatenate([MODELS[:2], DATA[:1]])).square()
    copied = np.array([[one[drawn[a], drawn[b]] for a, b in pairs] for one in squares])
    assert inner_products(np.concatenate([MODELS[:2], DATA[:1]]), counts[None], "rsa_cosine_whitened")[0] == pytest.approx(
        copied @ V @ copied.T, rel=1e-10
    )
    centered = copied - copied.mean(1, keepdims=True)
    assert inner_products(np.concatenate([MODELS[:2], DATA[:1]]), counts[None], "rsa_corr_whitened")[0] == pytest.approx(
        centered @ V @ centered.T, rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("name", NAMES.values())
def test_the_route_for_missing_pairs_agrees_where_none_is_missing(name: str) -> None:
    ours = Fixed(MODELS, DATA, 15, name).draws(COUNTS[:2], COPIES[:2])
    above = np.triu_indices(15, 1)
    for k in range(2):
        w = COUNTS[k][above[0]] * COUNTS[k][above[1]]
        assert masked_scores(MODELS, DATA, w, name) @ COPIES[k] / 8 == pytest.approx(ours.both[k, :4], abs=1e-12)
        assert masked_ceiling(DATA, w, COPIES[k], name) == pytest.approx(ours.both[k, 4:], abs=1e-10)


def test_dual_variances_equal_rsatoolbox() -> None:
    rng = np.random.RandomState(8)
    three = rng.randn(3, 40, 6) * np.array([1.0, 0.7, 0.8])[:, None, None]
    draws, target = Draws(*three), Target(frozenset({"stimuli", "subjects"}), 15, 8)
    eye = np.eye(6)
    assert [variance(draws, eye[i], target) for i in range(4)] == pytest.approx(PEER["variances"]["model"])
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    assert [variance(draws, eye[i] - eye[j], target) for i, j in pairs] == pytest.approx(PEER["variances"]["difference"])
    assert [variance(draws, eye[i] - eye[4], target) for i in range(4)] == pytest.approx(PEER["variances"]["ceiling"])


# ---- the verb --------------------------------------------------------------------------------------------------------------------


def test_over_subjects_it_is_the_t_test() -> None:
    result = ix.compare(FOUR, SUBJECTS, "rsa_cosine", generalize_to="subjects", correction=None)
    scores = Fixed(MODELS, DATA, 15, "rsa_cosine").point()[0]
    for index, name in enumerate("abcd"):
        row = result.where(system=name, axis=None).rows()[0]
        expected = scipy.stats.ttest_1samp(scores[index], 0, alternative="greater")
        interval = scipy.stats.ttest_1samp(scores[index], 0).confidence_interval(0.95)
        assert (row["value"], row["low"], row["high"]) == pytest.approx((scores[index].mean(), *interval))
        assert row["p"] == pytest.approx(expected.pvalue, rel=1e-6)
        assert row["interval_method"] == "t(7) over subjects"
    pair = result.where(system="a", axis="difference", at="b").rows()[0]
    assert pair["p"] == pytest.approx(scipy.stats.ttest_rel(scores[0], scores[1]).pvalue)
    assert pair["p"] == pytest.approx(OLD["rsatoolbox/eval_fixed/cosine/t_tests"][1], rel=1e-6)
    assert result.where(axis="subject", system="c").column("value") == pytest.approx(scores[2].tolist())


def test_dual_error_bars_are_those_of_rsatoolbox_up_to_chance() -> None:
    result = ix.compare(FOUR, SUBJECTS, "rsa_cosine", draws=1000)
    theirs = np.array(OLD["rsatoolbox/eval_dual_bootstrap/cosine/N300"][4:8])
    rows = result.where(axis=None).rows()
    assert rows[0]["interval_method"] == "t(7) over stimuli and subjects, dual bootstrap(1000)"
    reach = scipy.stats.t.ppf(0.975, 7)
    assert np.array([(row["high"] - row["value"]) / reach for row in rows]) == pytest.approx(theirs, rel=0.15)


def test_the_same_seed_gives_the_same_numbers_and_draws_are_kept() -> None:
    first, again, other = (ix.compare(FOUR, SUBJECTS, "rsa_corr", draws=50, seed=seed) for seed in (1, 1, 2))
    assert first.column("low") == again.column("low")
    assert first.column("low") != other.column("low")
    assert first.arrays["draws/rsa_corr/both"].shape == (50, 6)


def test_holm_and_max_correct_the_family_of_pairs() -> None:
    plain = ix.compare(FOUR, SUBJECTS, "rsa_corr", draws=200, correction=None).where(axis="difference")
    holm = ix.compare(FOUR, SUBJECTS, "rsa_corr", draws=200, correction="holm").where(axis="difference")
    assert holm.column("p_corrected") == pytest.approx(ix.stats.holm(plain.column("p")).tolist())
    most = ix.compare(FOUR, SUBJECTS, "rsa_corr", draws=200, correction="max").where(axis="difference")
    assert all(corrected >= p for corrected, p in zip(most.column("p_corrected"), most.column("p"), strict=True))


def test_arrays_of_subjects_with_their_own_units() -> None:
    truth, shown = world()
    subjects = {f"s{i}": one[:, : 20 + i] for i, one in enumerate(shown)}
    result = ix.compare(truth, subjects, "rsa_corr_whitened", generalize_to={"stimuli", "subjects"}, ceiling=True, draws=100)
    assert result.unique("subject") == list(subjects)
    expected = np.mean([ix.measures.rsa_corr_whitened(truth, one) for one in subjects.values()])
    assert result.value(axis=None) == pytest.approx(expected, abs=1e-10)
    assert result.value(at="lower") <= result.value(at="upper")


def test_views_and_stores_are_models_and_subjects() -> None:
    from inscape.store import Store

    truth, shown = world()
    ids = [f"im{i}" for i in range(20)]
    net = Store.from_arrays({"l1": truth, "l2": truth**2}, stimuli=ids, system="net")
    brain = {f"s{i}": Store.from_arrays({"it": one, "v1": one[:, :9]}, stimuli=ids[::-1]) for i, one in enumerate(shown[:, ::-1])}
    result = ix.compare(net, brain, "rsa_corr", generalize_to={"subjects"})
    heads = result.where(axis=None)
    assert heads.unique("system") == ["l1", "l2"] and heads.unique("site_b") == ["it", "v1"]
    expected = np.mean([ix.measures.rsa_corr(truth, one) for one in shown])
    assert heads.value(system="l1", site_b="it") == pytest.approx(expected, abs=1e-10)


def test_matrices_of_one_subject_are_averaged() -> None:
    sessions = RDMs(DATA, subjects=["ann", "ann", "bob", "bob", "cem", "cem", "dee", "dee"])
    result = ix.compare(FOUR, sessions, "rsa_cosine", interval=None)
    means = DATA.reshape(4, 2, -1).mean(1)
    assert result.value(system="a", axis=None) == pytest.approx(Fixed(MODELS, means, 15, "rsa_cosine").point()[0][0].mean())


def test_partial_correlation_is_that_of_residuals() -> None:
    result = ix.compare(FOUR.select(subjects=[0]), SUBJECTS, "rsa_corr", control=FOUR.select(subjects=[1, 2]), interval=None)
    base = np.stack([np.ones(105), MODELS[1], MODELS[2]], 1)
    left = [one - base @ np.linalg.lstsq(base, one, rcond=None)[0] for one in (MODELS[0], *DATA)]
    assert result.value(axis=None) == pytest.approx(np.mean([np.corrcoef(left[0], one)[0, 1] for one in left[1:]]), abs=1e-10)
    ranks = [scipy.stats.rankdata(one) for one in (MODELS[0], MODELS[1], *DATA)]
    base = np.stack([np.ones(105), ranks[1]], 1)
    left = [one - base @ np.linalg.lstsq(base, one, rcond=None)[0] for one in (ranks[0], *ranks[2:])]
    result = ix.compare(FOUR[0], SUBJECTS, "rsa_spearman", control=FOUR[1], interval=None)
    assert result.value(axis=None) == pytest.approx(np.mean([np.corrcoef(left[0], one)[0, 1] for one in left[1:]]), abs=1e-10)
    with pytest.raises(DegenerateInputError, match="regression"):
        ix.compare(FOUR, SUBJECTS, "rsa_tau_a", control=FOUR[0])


def test_relabeled_models_are_the_null() -> None:
    truth, shown = world(noise=2.0)
    rng = np.random.default_rng(1)
    models = ix.rdm({"true": truth, "other": rng.standard_normal((20, 5))})
    result = ix.compare(models, ix.rdm(dict(enumerate(shown))), "rsa_corr", null="permute", draws=99, interval=None).where(axis=None)
    assert result.value(system="true") > 0.3 and result.where(system="true").column("p") == [0.01]
    assert result.where(system="other").column("p")[0] > 0.02
    assert abs(result.column("null_mean")[0]) < 0.05


# ---- models that are fitted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure,peer", [("rsa_corr", "corr"), ("rsa_cosine", "cosine")])
def test_fitted_weights_equal_rsatoolbox(measure: str, peer: str) -> None:
    members = [Member("weighted", (0, 1, 2)), Member("interpolated", (0, 1, 2)), Member("selected", (0, 1, 2))]
    found = Fitted(members, MODELS[:3], DATA, 15, measure).weights()
    for ours, kind in zip(found[:2], ("weighted", "interpolated"), strict=True):
        theirs = np.array(PEER[f"{kind}/{peer}"])
        assert ours == pytest.approx(theirs / theirs.sum(), abs=2e-4 if kind == "interpolated" else 1e-8)
    assert found[2].tolist() == [1, 0, 0]


def test_weights_of_a_mixture_are_found_and_held_out() -> None:
    rng = np.random.default_rng(1)
    a, b, c = (ix.rdm(rng.standard_normal((24, 6)), "squared_euclidean").values[0] for _ in range(3))
    subjects = RDMs(np.stack([0.7 * a + 0.3 * b + 0.05 * rng.standard_normal(276) for _ in range(6)]))
    mix = weighted(RDMs([a, b, c], subjects=["a", "b", "c"]), name="mix")
    single = RDMs([a], subjects=["a alone"])
    result = ix.compare([mix, single], subjects, "rsa_corr", ceiling=True, draws=60)
    assert [result.value(axis="weight", at=name) for name in "abc"] == pytest.approx([0.7, 0.3, 0], abs=0.02)
    assert result.value(system="mix", axis=None) > result.value(system="a alone", axis=None) + 0.02
    assert result.where(system="mix", axis="difference", at="a alone").column("p")[0] < 0.05
    assert result.value(system="mix", axis=None) == pytest.approx(result.value(at="upper"), abs=0.02)


def test_a_fit_to_noise_is_no_better_than_chance() -> None:
    rng = np.random.default_rng(2)
    scores = []
    for seed in range(12):
        parts = RDMs(np.stack([ix.rdm(rng.standard_normal((16, 8))).values[0] for _ in range(5)]))
        subjects = RDMs(np.stack([ix.rdm(rng.standard_normal((16, 8))).values[0] for _ in range(4)]))
        scores.append(
            [
                ix.compare([kind(parts)], subjects, "rsa_corr", interval=None, seed=seed).value(axis=None)
                for kind in (weighted, selected, interpolated)
            ]
        )
    assert (np.abs(np.mean(scores, axis=0)) < 3 * np.std(scores, axis=0, ddof=1) / np.sqrt(12)).all()


# ---- sizes and refusals ----------------------------------------------------------------------------------------------------------


def test_one_matrix_one_model_five_stimuli() -> None:
    one, model = SUBJECTS.select(stimuli=range(5), subjects=[0]), FOUR.select(stimuli=range(5), subjects=[0])
    for name in ALL:
        result = ix.compare(model, one, name, ceiling=True, draws=200)
        head = result.where(axis=None).rows()[0]
        assert head["low"] < head["value"] < head["high"] and "over stimuli, bootstrap(" in head["interval_method"]
        assert result.where(at="lower").column("reason")[0].startswith("a noise ceiling needs 2 subjects")
    with pytest.raises(TooFewStimuliError, match="there is 1 subject"):
        ix.compare(model, one, "rsa_corr", generalize_to={"subjects"})
    with pytest.raises(TooFewStimuliError, match="4 stimuli; at least 5"):
        ix.compare(model.select(stimuli=range(4)), one.select(stimuli=range(4)), "rsa_corr", generalize_to="stimuli")


def test_bures_generalizes_to_subjects_alone() -> None:
    result = ix.compare(FOUR, SUBJECTS, "rsa_bures", ceiling=True)
    assert result.value(system="a", axis=None) == pytest.approx(
        np.mean([ix.measures.rsa_bures.evaluate(x=FOUR[0].summary(), y=one.summary()) for one in SUBJECTS])
    )
    assert result.where(system="a", axis=None).column("interval_method") == ["t(7) over subjects"]
    assert "no pooling is known" in result.where(at="upper").column("reason")[0]
    with pytest.raises(DegenerateInputError, match="biased when stimuli are drawn twice"):
        ix.compare(FOUR, SUBJECTS, "rsa_bures", generalize_to="stimuli")


def test_missing_pairs() -> None:
    holes = DATA.copy()
    holes[:, 7] = np.nan
    same = ix.compare(FOUR, RDMs(holes), "rsa_corr", ceiling=True, draws=50)
    kept = np.arange(105) != 7
    expected = np.mean([np.corrcoef(MODELS[0][kept], one[kept])[0, 1] for one in DATA])
    assert same.value(system="a", axis=None) == pytest.approx(expected)
    holes[2, 20:40] = np.nan
    differing = ix.compare(FOUR, RDMs(holes), "rsa_spearman", ceiling=True, draws=20)
    assert np.isfinite(differing.value(system="a", axis=None)) and differing.value(at="lower") < differing.value(at="upper")
    with pytest.raises(DegenerateInputError, match="pairs are missing"):
        ix.compare(FOUR, RDMs(holes), "rsa_corr_whitened")


def test_groups_of_stimuli_are_drawn_together() -> None:
    labels = np.arange(15) // 2
    result = ix.compare(FOUR, SUBJECTS, "rsa_corr", groups=labels, draws=50)
    assert "t(7)" in result.where(axis=None).column("interval_method")[0]
    alone = ix.compare(FOUR, SUBJECTS, "rsa_corr", draws=50)
    assert result.column("low")[0] != alone.column("low")[0]
    with pytest.raises(StoreMismatchError, match="3 entries for 15"):
        ix.compare(FOUR, SUBJECTS, "rsa_corr", groups=[1, 2, 3])


def test_a_constant_model_has_a_status_and_the_others_their_values() -> None:
    result = ix.compare(RDMs(np.stack([np.ones(105), MODELS[0]])), SUBJECTS, "rsa_corr", draws=50)
    assert result.where(axis=None).column("status") == ["degenerate", "ok"]
    assert result.where(axis=None).column("value")[1] == pytest.approx(Fixed(MODELS, DATA, 15, "rsa_corr").point()[0][0].mean())


@pytest.mark.parametrize(
    "error,match,options",
    [
        (ValueError, "must be 'stimuli', 'subjects'", {"generalize_to": "runs"}),
        (ValueError, "pairs='diagonal'", {"pairs": "diagonal"}),
        (ValueError, "sample=10", {"sample": 10}),
        (ValueError, "use 'auto', 'bootstrap' or None", {"interval": "jackknife"}),
        (ValueError, "null='permute'", {"null": "closed"}),
        (ValueError, "does not compare dissimilarity matrices", {"measures": "linear_cka"}),
    ],
)
def test_bad_requests_teach(error: type[Exception], match: str, options: dict[str, Any]) -> None:
    chosen = options.pop("measures", "rsa_corr")
    with pytest.raises(error, match=match):
        ix.compare(FOUR, SUBJECTS, chosen, **options)


def test_other_stimuli_are_refused() -> None:
    named = RDMs(DATA, stimuli=[f"im{i}" for i in range(15)])
    with pytest.raises(StoreMismatchError, match="model 'a' and data"):
        ix.compare(RDMs(MODELS[:1], stimuli=[f"ob{i}" for i in range(15)], subjects=["a"]), named, "rsa_corr")
    assert len(ix.compare(FOUR, named, "rsa_corr", interval=None).where(axis=None)) == 4


# ---- what must hold --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_truth_is_not_beaten_more_often_than_alpha_and_intervals_cover() -> None:
    beaten, covered, trials = 0, 0, 120
    sums: list[tuple[float, float, float]] = []
    for seed in range(trials):
        rng = np.random.default_rng([3, seed])
        truth = rng.standard_normal((24, 30))
        rival = truth + 0.4 * rng.standard_normal((24, 30))
        subjects = {str(s): truth + 1.5 * rng.standard_normal((24, 30)) for s in range(8)}
        result = ix.compare(ix.rdm({"true": truth, "rival": rival}), ix.rdm(subjects), "rsa_corr", draws=200, seed=seed)
        row = result.where(axis="difference").rows()[0]
        beaten += row["value"] < 0 and row["p"] < 0.05
        head = result.where(system="true", axis=None).rows()[0]
        sums.append((head["value"], head["low"], head["high"]))
    mean = np.mean([value for value, _, _ in sums])
    covered = sum(low <= mean <= high for _, low, high in sums)
    assert beaten <= 0.05 * trials + 3 * np.sqrt(0.05 * 0.95 * trials)
    assert 0.88 * trials <= covered
