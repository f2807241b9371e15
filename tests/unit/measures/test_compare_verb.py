"""The verb `compare`: pairing, routes, intervals, nulls, correction, bad input."""

import numpy as np
import pytest
from scipy.stats import kstest

import inscape as ix
from inscape.errors import InscapeWarning, MemoryBudgetError, SiteNotFoundError, StoreMismatchError, TooFewStimuliError, UnknownMeasureError
from inscape.stats import jackknife_groups, jackknife_interval, permutations

PAIRS = ["linear_cka", "linear_cka_debiased", "cca_mean", "procrustes", "mutual_knn", "rsa_spearman"]
DEBIASED = "linear_cka_debiased"


@pytest.fixture(scope="module")
def systems():
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((90, 4))
    a = {f"a{i}": Z @ rng.standard_normal((4, 5 + i)) + 0.5 * rng.standard_normal((90, 5 + i)) + i for i in range(2)}
    b = {f"b{i}": Z @ rng.standard_normal((4, 4 + i)) + (0.5 + i) * rng.standard_normal((90, 4 + i)) for i in range(3)}
    return a, b


@pytest.mark.parametrize("name", PAIRS)
def test_values_intervals_and_nulls_are_those_of_the_plain_function(systems, name):
    X, Y = systems[0]["a0"], systems[1]["b1"]
    plain = getattr(ix.measures, name)
    row = ix.compare(X, Y, name, interval=5, null="permute", draws=19, seed=3).rows()[0]
    groups = jackknife_groups(np.arange(90), 5, seed=3)
    expected = jackknife_interval(plain(X, Y), [plain(X[groups != g], Y[groups != g]) for g in range(5)])
    null = [plain(X, Y[order]) for order in permutations(np.arange(90), 19, seed=3)]
    assert row["value"] == pytest.approx(plain(X, Y), rel=1e-9)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, min(expected.high, plain.range[1])), rel=1e-6)
    assert row["null_mean"] == pytest.approx(np.mean(null), rel=1e-6, abs=1e-9)
    assert row["p"] == pytest.approx(1 / 20) and 0 < row["calibrated"] < 1


def test_kernel_tiles_and_moments_agree(systems):
    """One more measure of cross moments moves CKA from tiles to moments."""
    a, b = systems
    tiles = ix.compare(a, b, ["linear_cka", DEBIASED], interval=6)
    moments = ix.compare(a, b, ["linear_cka", DEBIASED, "procrustes"], interval=6)
    assert ix.plan(a, ["linear_cka", DEBIASED], b).steps[0].route in ("tiles", "moments")
    for name in ("linear_cka", DEBIASED):
        for column in ("value", "low", "high"):
            np.testing.assert_allclose(tiles.where(measure=name).column(column), moments.where(measure=name).column(column), rtol=1e-9)


def test_wide_rows_go_by_tiles_and_tall_ones_by_moments():
    rng = np.random.default_rng(0)
    wide, tall = {"w": rng.standard_normal((20, 300))}, {"t": rng.standard_normal((3000, 8))}
    assert ix.plan(wide, "linear_cka", wide).steps[0].route == "tiles"
    assert ix.plan(tall, "linear_cka", tall).steps[0].route == "moments"


def test_a_system_with_itself(systems):
    b = systems[1]
    result = ix.compare(b, b, PAIRS, interval=None, null="permute", draws=9)
    assert len(result) == 9 * len(PAIRS)
    for name in PAIRS:
        best = 0.0 if name == "procrustes" else 1.0
        for site in b:
            itself = result.where(measure=name, site=site, site_b=site).rows()[0]
            assert itself["value"] == pytest.approx(best, abs=1e-6) and itself["p"] is None
        assert result.value(measure=name, site="b0", site_b="b2") == pytest.approx(result.value(measure=name, site="b2", site_b="b0"))


def test_only_the_wanted_pairs(systems):
    a, b = systems
    assert len(ix.compare(a, b, DEBIASED, interval=None)) == 6
    named = ix.compare(a, b, DEBIASED, pairs=[("a1", "b2")], interval=None).rows()
    assert [(row["site"], row["site_b"]) for row in named] == [("a1", "b2")]
    assert len(ix.compare(a, {"x": b["b0"], "y": b["b1"]}, DEBIASED, pairs="diagonal", interval=None)) == 2
    with pytest.raises(StoreMismatchError, match="got 2 and 3"):
        ix.compare(a, b, DEBIASED, pairs="diagonal")
    with pytest.raises(SiteNotFoundError, match="'b2'"):
        ix.compare(a, b, DEBIASED, pairs=[("a1", "b3")])
    with pytest.raises(ValueError, match="pairs='some'"):
        ix.compare(a, b, DEBIASED, pairs="some")


def test_little_memory_cuts_sites_into_blocks_with_the_same_numbers(monkeypatch):
    rng = np.random.default_rng(0)
    a = {f"s{i}": rng.standard_normal((300, 12)) for i in range(5)}
    names = ["procrustes", "rsa_spearman", "mutual_knn"]
    whole = ix.compare(a, a, names, interval=4)
    monkeypatch.setattr("inscape.measures.verbs.memory_budget", lambda memory: 3_000_000)
    cut = ix.compare(a, a, names, interval=4)
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(cut.column(column), whole.column(column), rtol=1e-8)


def test_a_triangle_that_cannot_fit_is_refused_with_advice():
    X = np.random.default_rng(0).standard_normal((2000, 3))
    with pytest.raises(MemoryBudgetError, match="sample=2000"):
        ix.compare(X, X + 1, "rsa_spearman", memory="20MB")
    assert ix.compare(X, X + 1, "rsa_spearman", memory="20MB", sample=200, interval=None).rows()[0]["n"] == 200


def test_a_sample_takes_the_same_rows_of_both(systems):
    X = systems[0]["a0"]
    row = ix.compare(X, 2 * X, "linear_cka", sample=30, interval=None).rows()[0]
    assert row["n"] == 30 and row["value"] == pytest.approx(1)


@pytest.mark.slow
def test_independent_systems_have_uniform_p():
    rng = np.random.default_rng(0)
    p = [
        ix.compare(
            rng.standard_normal((14, 3)), rng.standard_normal((14, 4)), DEBIASED, interval=None, null="permute", draws=39, seed=s
        ).rows()[0]["p"]
        for s in range(120)
    ]
    jitter = np.random.default_rng(1).uniform(0, 1 / 40, len(p))
    assert kstest(np.array(p) - jitter, "uniform").pvalue > 0.01


@pytest.mark.parametrize("correction", ["max", "holm", "bh"])
def test_corrected_p_is_never_smaller(systems, correction):
    rng = np.random.default_rng(5)
    noise = {f"n{i}": rng.standard_normal((90, 6)) for i in range(4)}
    rows = ix.compare(systems[0], noise, [DEBIASED, "procrustes"], interval=None, null="permute", draws=39, correction=correction).rows()
    assert all(row["p_corrected"] >= row["p"] - 1e-12 for row in rows)
    assert all(row["calibrated"] == 0 for row in rows if row["p"] > 0.1)
    plain = ix.compare(systems[0], noise, DEBIASED, interval=None, null="permute", draws=39, correction=None)
    assert plain.unique("p_corrected") == []


def test_tokens_of_one_text_are_shuffled_together():
    """Rows that only share their text's mean: a null that shuffles single rows would call any two systems alike."""
    rng = np.random.default_rng(0)
    text = np.repeat(np.arange(12), 15)
    X, Y = rng.standard_normal((12, 5))[text] + 0.1 * rng.standard_normal((180, 5)), rng.standard_normal((12, 5))[text]
    Y = Y + 0.1 * rng.standard_normal((180, 5))
    single = ix.compare(X, Y, "linear_cka", interval=None, null="permute", draws=99).rows()[0]
    blocks = ix.compare(X, Y, "linear_cka", interval=None, null="permute", draws=99, groups=text).rows()[0]
    assert single["p"] == 0.01 and blocks["p"] > 0.05


def test_bootstrap_by_weights_agrees_with_the_jackknife(systems):
    X, Y = systems[0]["a0"], systems[1]["b0"]
    names = ["linear_cka", DEBIASED, "rsa_spearman", "procrustes"]
    by_weights = ix.compare(X, Y, names, interval="bootstrap", draws=300)
    by_groups = ix.compare(X, Y, names, interval=30)
    for name in names[:3]:
        a, b = by_weights.where(measure=name).rows()[0], by_groups.where(measure=name).rows()[0]
        assert a["interval_method"] == "bootstrap(300)"
        assert (a["high"] - a["low"]) == pytest.approx(b["high"] - b["low"], rel=0.45)
    refused = by_weights.where(measure="procrustes").rows()[0]
    assert refused["low"] is None and "use interval='jackknife'" in refused["interval_method"]


def test_one_dead_site_does_not_take_the_others_down(systems):
    a, b = systems
    broken = {**b, "nan": np.full((90, 3), np.nan), "flat": np.ones((90, 3))}
    result = ix.compare(a, broken, PAIRS, interval=4)
    for site in b:
        assert set(result.where(site_b=site).column("status")) == {"ok"}
    assert set(result.where(site_b="nan").column("status")) == {"degenerate"}
    assert "nan" in result.where(site_b="nan").rows()[0]["reason"]
    assert result.where(site_b="flat", measure="linear_cka").rows()[0]["status"] == "degenerate"


def test_stores_pair_by_stimulus_whatever_their_order(systems):
    X = systems[0]["a0"]
    order = np.random.default_rng(0).permutation(90)
    ids = [f"im{i}" for i in range(90)]
    one = ix.Store.from_arrays({"x": X}, ids)
    other = ix.Store.from_arrays({"x": X[order]}, [ids[i] for i in order])
    assert ix.compare(one, other, "linear_cka", interval=None).value() == pytest.approx(1)


def test_stores_that_do_not_match_say_which_ids_differ(systems):
    X = systems[0]["a0"]
    one = ix.Store.from_arrays({"x": X}, [f"im{i}" for i in range(90)])
    other = ix.Store.from_arrays({"x": X}, [f"im{i + 2}" for i in range(90)])
    with pytest.raises(StoreMismatchError, match="im0") as error:
        ix.compare(one, other, "linear_cka")
    assert "im91" in str(error.value)
    shared = ix.compare(one, other, "linear_cka", on="intersection", interval=None).rows()[0]
    assert shared["n"] == 88


def test_repeats_are_averaged_or_split_on_request():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((30, 6))
    repeated = base[:, None, :] + 0.3 * rng.standard_normal((30, 4, 6))
    store, plain = ix.Store.from_arrays({"x": repeated}, system="r"), ix.Store.from_arrays({"x": base}, system="p")
    with pytest.raises(StoreMismatchError, match="repeats="):
        ix.compare(store, plain, DEBIASED)
    mean = ix.compare(store, plain, DEBIASED, repeats="mean", interval=None).rows()[0]
    assert mean["n"] == 30
    assert mean["value"] == pytest.approx(ix.measures.linear_cka_debiased(repeated.mean(1), base), rel=1e-9)


def test_arrays_of_different_length_are_refused():
    with pytest.raises(StoreMismatchError, match="5"):
        ix.compare(np.zeros((5, 2)), np.zeros((6, 2)), "linear_cka")
    with pytest.raises(TooFewStimuliError, match="share 1 rows"):
        ix.compare(np.ones((1, 2)), np.ones((1, 2)) + 1, "linear_cka")
    with pytest.raises(UnknownMeasureError, match=r"ix.measure\(data"):
        ix.compare(np.zeros((5, 2)), np.zeros((5, 2)), "two_nn")


def test_few_rows_for_cca_warn_once_with_the_count():
    rng = np.random.default_rng(0)
    a = {f"s{i}": rng.standard_normal((40, 5)) for i in range(3)}
    with pytest.warns(InscapeWarning, match=r"40 rows for 5 \+ 5 units .*and 8 more rows") as caught:
        result = ix.compare(a, a, "cca_mean", interval=4)
    assert len(caught) == 1 and all("5 (p + q) = 50" in row["reason"] for row in result)


def test_the_plan_runs_nothing_and_names_its_parts(systems):
    plan = ix.plan(systems[0], ["cca_mean", "rsa_spearman", "linear_cka"], systems[1], null="permute", draws=10)
    text = str(plan)
    assert "cross moments of 6 pairs" in text and "RDM of 5 sites" in text and "10 permutations" in text
    assert plan.flops > 0 and plan.seconds > 0


def test_views_with_different_rows_of_one_store_pair_by_stimulus(systems):
    X = systems[0]["a0"]
    store = ix.Store.from_arrays({"a": X, "b": X.copy()}, [f"s{i}" for i in range(90)])
    order = np.random.default_rng(0).permutation(90)
    values = ix.compare([store["a"], store["b"].select(rows=order)], store["a"], "linear_cka", interval=None).column("value")
    assert values == pytest.approx([1.0, 1.0], abs=1e-12)  # the order of the sums is the last digit
    parts = [store["a"].select(rows=np.arange(60)), store["b"].select(rows=np.arange(30, 90))]
    result = ix.compare(parts, parts, "linear_cka", interval=None, on="intersection")
    assert {(row["site"], row["site_b"]): row["n"] for row in result} == {("a", "a"): 60, ("a", "b"): 30, ("b", "a"): 30, ("b", "b"): 60}
    assert result.value(site="a", site_b="b") == pytest.approx(1)


def test_sources_of_unequal_length_do_not_reject_too_often():
    """Blocks of unequal length laid end to end rejected in a fourth of such runs at the level .05."""
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(18), np.tile([1, 2, 20], 6))
    hits = 0
    for seed in range(60):
        X, Y = (rng.standard_normal((18, 3))[source] + 0.1 * rng.standard_normal((len(source), 3)) for _ in range(2))
        row = ix.compare(X, Y, "linear_cka", groups=source, interval=None, null="permute", draws=39, seed=seed).rows()[0]
        hits += row["p"] <= 0.05
    assert hits <= 8


def test_rows_that_cannot_be_exchanged_are_said():
    rng = np.random.default_rng(0)
    source = np.repeat([0, 1, 2, 3], [2, 2, 3, 5])
    with pytest.warns(InscapeWarning, match="67% of the rows"):
        row = ix.compare(
            rng.standard_normal((12, 3)), rng.standard_normal((12, 3)), "linear_cka", groups=source, interval=None, null="permute"
        ).rows()[0]
    assert row["p"] is not None
    with pytest.warns(InscapeWarning, match="100% of the rows"):
        none = ix.compare(
            rng.standard_normal((10, 3)),
            rng.standard_normal((10, 3)),
            "linear_cka",
            groups=np.repeat([0, 1, 2], [2, 3, 5]),
            interval=None,
            null="permute",
        ).rows()[0]
    assert none["p"] is None


def test_what_one_measure_lacks_does_not_take_the_others_down():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((2, 9, 4))
    result = ix.compare(X, Y, ["rsa_spearman", "mutual_knn"], interval=3)
    assert result.where(measure="rsa_spearman").column("status") == ["ok"]
    assert result.where(measure="mutual_knn").column("status") == ["too_few"]


def test_a_bootstrap_with_too_few_sources_gives_no_interval():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    row = ix.compare(X, X + rng.standard_normal((60, 4)), DEBIASED, groups=np.arange(60) % 3, interval="bootstrap", draws=50).rows()[0]
    assert row["value"] is not None and row["low"] is None and "undefined in" in row["interval_method"]
    with pytest.raises(ValueError, match="at least 20 are needed"):
        ix.compare(X, X, DEBIASED, interval="bootstrap", draws=5)


def test_words_that_mean_nothing_are_refused(systems):
    with pytest.raises(ValueError, match="on='banana'"):
        ix.compare(systems[0], systems[0], DEBIASED, on="banana")
    with pytest.raises(ValueError, match="repeats='twice'"):
        ix.compare(systems[0], systems[0], DEBIASED, repeats="twice")
    with pytest.raises(ValueError, match="interval=True"):
        ix.compare(systems[0], systems[0], DEBIASED, interval=True)
    assert ix.plan(systems[0], DEBIASED, systems[0], pairs=[]).steps == ()
