"""The verb `measure`: values, intervals, routes, bad input."""

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import InscapeWarning, StimuliError, StoreMismatchError, UnknownMeasureError
from inscape.stats import jackknife_groups, jackknife_interval

ALL = ["effective_rank", "rankme", "participation_ratio", "stable_rank", "isoscore", "mean_cosine", "two_nn", "mle_dimension"]


def entropy_rank(X):
    s = np.linalg.svd(X - X.mean(0), compute_uv=False)
    p = s / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.fixture(scope="module")
def system():
    rng = np.random.default_rng(0)
    return {f"layer{i}": rng.standard_normal((120, 6)) @ np.diag(np.arange(1, 7.0) ** -i) + i for i in range(3)}


def test_values_and_intervals_by_hand(system):
    result = ix.measure(system, "effective_rank", interval=8)
    groups = jackknife_groups(np.arange(120), 8)
    for site, X in system.items():
        left_out = [entropy_rank(X[groups != g]) for g in range(8)]
        expected = jackknife_interval(entropy_rank(X), left_out, bounds=(1, 6))
        row = result.where(site=site).rows()[0]
        assert row["value"] == pytest.approx(entropy_rank(X), rel=1e-10)
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), rel=1e-7)
        assert row["interval_method"] == "jackknife(8)" and row["n"] == 120 and row["d"] == 6


@pytest.mark.parametrize("name", ALL)
def test_every_interval_is_the_leave_out_of_the_plain_function(system, name):
    X = system["layer1"]
    plain = getattr(ix.measures, name)
    groups = jackknife_groups(np.arange(120), 6)
    expected = jackknife_interval(plain(X), [plain(X[groups != g]) for g in range(6)])
    row = ix.measure(X, name, interval=6).rows()[0]
    assert row["value"] == pytest.approx(plain(X), rel=1e-9)
    low, high = plain.facts.limits(120, 6)
    assert row["low"] == pytest.approx(max(low, expected.low), rel=1e-6)
    assert row["high"] == pytest.approx(min(high, expected.high), rel=1e-6)


def test_fewer_rows_than_units_and_streamed_rows_give_the_same():
    X = np.random.default_rng(1).standard_normal((30, 50))
    row = ix.measure(X, "effective_rank", interval=5).rows()[0]
    groups = jackknife_groups(np.arange(30), 5)
    expected = jackknife_interval(entropy_rank(X), [entropy_rank(X[groups != g]) for g in range(5)], bounds=(1, 29))
    assert (row["value"], row["low"]) == pytest.approx((entropy_rank(X), expected.low), rel=1e-7)


def test_rows_that_do_not_fit_are_streamed_to_the_same_numbers(tmp_path):
    X = np.random.default_rng(2).standard_normal((60_000, 40))
    store = ix.Store.from_arrays({"big": X}, to=tmp_path / "s")
    plan = ix.plan(store, ["effective_rank", "mean_cosine"], memory="20MB")
    assert {step.route for step in plan.steps[:2]} == {"streamed"}
    tight = ix.measure(store, ["effective_rank", "mean_cosine"], memory="20MB", interval=4)
    ample = ix.measure(store, ["effective_rank", "mean_cosine"], interval=4)
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(tight.column(column), ample.column(column), rtol=1e-9)


def test_rows_of_one_stimulus_leave_together():
    rng = np.random.default_rng(3)
    base = rng.standard_normal((20, 4))
    X = np.repeat(base, 10, axis=0) + 1e-3 * rng.standard_normal((200, 4))
    naive = ix.measure(X, "participation_ratio", interval=10).rows()[0]
    honest = ix.measure(X, "participation_ratio", interval=10, groups=np.repeat(np.arange(20), 10)).rows()[0]
    assert honest["high"] - honest["low"] > 2 * (naive["high"] - naive["low"])


def test_labels_their_null_and_its_p():
    rng = np.random.default_rng(4)
    y = np.arange(90) % 3
    apart, mixed = rng.standard_normal((90, 4)) + y[:, None], rng.standard_normal((90, 4))
    result = ix.measure({"apart": apart, "mixed": mixed}, "class_separation", labels=y, null="permute", draws=99)
    first, second = result.rows()
    means = np.stack([apart[y == c].mean(0) for c in range(3)])
    within = sum(((apart[y == c] - means[c]) ** 2).sum() for c in range(3))
    assert first["value"] == pytest.approx(30 * ((means - apart.mean(0)) ** 2).sum() / within, rel=1e-9)
    assert first["p"] == first["p_corrected"] == 0.01
    assert second["p"] > 0.05 and second["p_corrected"] >= second["p"]
    assert second["null_mean"] == pytest.approx(second["value"], rel=1)


def test_a_label_column_is_recorded():
    y = np.arange(30) % 3
    store = ix.Store.from_arrays({"x": np.random.default_rng(0).standard_normal((30, 3))}, {"kind": [str(v) for v in y]})
    row = ix.measure(store, "class_separation", labels="kind").rows()[0]
    assert row["label"] == "kind"
    assert row["value"] == pytest.approx(ix.measures.class_separation(store["x"].numpy(), y))
    assert "needs labels" in ix.measure(store, "class_separation").rows()[0]["reason"]
    unknown = ix.measure(store, "class_separation", labels="kinds").rows()[0]
    assert unknown["status"] == "failed" and "'kind'" in unknown["reason"]


def test_one_dead_site_does_not_take_the_others_down(system):
    broken = {**system, "dead": np.ones((120, 6)), "nan": np.full((120, 6), np.nan)}
    broken["inf"] = system["layer0"].copy()
    broken["inf"][7, 2] = np.inf
    result = ix.measure(broken, ["effective_rank", "mean_cosine"], interval=None)
    status = {row["site"]: row["status"] for row in result.where(measure="effective_rank")}
    assert status == {"layer0": "ok", "layer1": "ok", "layer2": "ok", "dead": "degenerate", "nan": "degenerate", "inf": "degenerate"}
    reason = result.where(site="inf").rows()[0]["reason"]
    assert "row 7, unit 2" in reason and "inf" in reason
    assert result.value(site="dead", measure="mean_cosine") == pytest.approx(1.0)


def test_too_few_rows_say_so():
    row = ix.measure(np.random.default_rng(0).standard_normal((15, 8)), "alpha_req").rows()[0]
    assert row["status"] == "too_few" and row["value"] is None


def test_one_source_has_a_value_and_no_interval():
    X = np.random.default_rng(0).standard_normal((50, 3))
    row = ix.measure(X, "participation_ratio", groups=np.zeros(50)).rows()[0]
    assert row["value"] > 1 and row["low"] is None and row["interval_method"] == "none: one source"


def test_a_bootstrap_is_refused_for_one_system():
    row = ix.measure(np.random.default_rng(0).standard_normal((50, 3)), "effective_rank", interval="bootstrap").rows()[0]
    assert row["low"] is None and "jackknife" in row["interval_method"]


def test_curves_have_a_headline_and_a_row_per_place(system):
    rows = ix.measure(system["layer0"], "two_nn_curve", interval=None).rows()
    assert rows[0]["at"] is None and rows[0]["axis"] == rows[1]["axis"]
    assert rows[0]["value"] == pytest.approx(ix.measures.two_nn(system["layer0"]), rel=1e-9)


def test_notes_reach_the_row_and_one_warning():
    X = np.random.default_rng(0).standard_normal((60, 5))
    X[1] = X[0]
    with pytest.warns(InscapeWarning, match="repeat another row"):
        row = ix.measure(X, "two_nn", interval=None).rows()[0]
    assert "repeat another row" in row["reason"] and row["status"] == "ok"


def test_what_is_asked_wrongly_is_refused(system):
    with pytest.raises(UnknownMeasureError, match="'effective_rank'"):
        ix.measure(system, "effective_rnk")
    with pytest.raises(UnknownMeasureError, match="measure of a pair"):
        ix.measure(system, "linear_cka")
    with pytest.raises(UnknownMeasureError, match="no measure was asked for"):
        ix.measure(system, [])
    with pytest.raises(ValueError, match="interval='sure'"):
        ix.measure(system, "rankme", interval="sure")
    with pytest.raises(ValueError, match="level=95"):
        ix.measure(system, "rankme", level=95)
    row = ix.measure(system, "rankme", groups=np.zeros(7)).rows()[0]
    assert "groups has 7 entries" in row["reason"]
    assert issubclass(StoreMismatchError, ValueError)


def test_options_of_a_measure_name_its_row(system):
    result = ix.measure(system["layer0"], [ix.measures.mle_dimension, ix.measures.mle_dimension.with_options(k=5)], interval=None)
    assert result.unique("measure") == ["mle_dimension", "mle_dimension(k=5)", "mle_dimension_curve"]
    assert result.value(measure="mle_dimension(k=5)") == pytest.approx(ix.measures.mle_dimension(system["layer0"], k=5), rel=1e-9)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ix.load(torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 4)))


@pytest.mark.parametrize("measures", [["participation_ratio", "mean_cosine"], ["participation_ratio", "two_nn"]])
def test_a_model_is_measured_straight_from_its_passes(network, measures):
    """Sums are fed by the forward passes; a neighbor graph spills to a temporary store. Both equal a store."""
    inputs = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
    straight = ix.measure(network, measures, stimuli=inputs, sites=["0", "2"], interval=8)
    stored = ix.measure(ix.capture(network, inputs, sites=["0", "2"]), measures, interval=8)
    assert straight.column("site") == stored.column("site")
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(straight.column(column), stored.column(column), rtol=1e-5)


def test_labels_go_straight_too(network):
    inputs = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    y = np.arange(40) % 2
    straight = ix.measure(network, "class_separation", stimuli=inputs, sites="0", labels=y, interval=4).rows()[0]
    stored = ix.measure(ix.capture(network, inputs, sites="0"), "class_separation", labels=y, interval=4).rows()[0]
    assert (straight["value"], straight["low"]) == pytest.approx((stored["value"], stored["low"]), rel=1e-5)
    with pytest.raises(StimuliError, match="labels have 3 entries for 40 stimuli"):
        ix.measure(network, "class_separation", stimuli=inputs, sites="0", labels=[0, 1, 2])
    with pytest.raises(StimuliError, match="needs stimuli="):
        ix.measure(network, "rankme")


def test_a_position_that_drowns_the_others_is_named():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((20, 8, 6)).astype(np.float32)
    hidden[:, 0] += 60
    model = ix.load(torch.nn.Identity())
    sunk = ix.capture(model, hidden, sites="output", tokens="all")
    with pytest.warns(InscapeWarning, match=r"position 0 carries 8\d% of the variance in 12% of the rows"):
        result = ix.measure(sunk, "participation_ratio", interval=None)
    assert "attention sink" in result.settings["warnings"][0]
    clean = ix.measure(ix.capture(model, hidden[:, 1:], sites="output", tokens="all"), "participation_ratio", interval=None)
    assert clean.settings["warnings"] == []


def test_results_say_how_many_tokens_were_cut():
    from inscape import zoo

    model = ix.load(zoo.GPT(zoo.ByteTokenizer.vocab_size), tokenizer=zoo.ByteTokenizer())
    with pytest.warns(InscapeWarning, match="cut at max_length=10"):
        store = ix.capture(model, ["x" * 25, "abc"], sites="blocks.1.resid_post", tokens="all", max_length=10)
    result = ix.measure(store, "mean_cosine", interval=None)
    assert "15 of 28 tokens were cut at max_length=10 (1 stimuli)" in result.settings["warnings"][0]
    assert result.settings["systems"][0]["input"]["special"] == "keep"


def test_what_one_measure_lacks_does_not_take_the_others_down():
    X = np.random.default_rng(0).standard_normal((15, 4))
    result = ix.measure(X, ["effective_rank", "mle_dimension", "two_nn"], interval=3)
    assert dict(zip(result.column("measure"), result.column("status"), strict=True)) == {
        "effective_rank": "ok",
        "mle_dimension": "too_few",
        "two_nn": "ok",
    }
    assert result.value(measure="two_nn") == pytest.approx(ix.measures.two_nn(X), rel=1e-9)


def test_groups_of_a_model_are_those_of_its_store(network):
    inputs = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
    groups = np.arange(64) // 8
    straight = ix.measure(network, "participation_ratio", stimuli=inputs, sites="0", groups=groups).rows()[0]
    stored = ix.measure(ix.capture(network, inputs, sites="0"), "participation_ratio", groups=groups).rows()[0]
    assert straight["interval_method"] == stored["interval_method"] == "jackknife(8)"
    assert straight["low"] == pytest.approx(stored["low"])


def test_one_dead_site_of_a_model_does_not_take_the_others_down():
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.good, self.bad = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
            with torch.no_grad():
                self.bad.bias[0] = float("nan")

        def forward(self, x):
            return self.bad(self.good(x))

    stimuli = np.ones((12, 5), "f4") * np.arange(12)[:, None]
    with pytest.warns(InscapeWarning, match="site 'bad' gives NaN or infinity in 12 of 12 rows"):
        result = ix.measure(ix.load(Broken()), "participation_ratio", stimuli=stimuli, sites=["good", "bad"])
    status = dict(zip(result.column("site"), result.column("status"), strict=True))
    assert status == {"good": "ok", "bad": "degenerate"}
    assert "Broken/bad" in result.where(site="bad").rows()[0]["reason"]


def test_a_large_site_beside_a_small_one_keeps_its_groups():
    rng = np.random.default_rng(0)
    large, small = ix.Store.from_arrays({"l": rng.standard_normal((60, 3))}), ix.Store.from_arrays({"s": rng.standard_normal((3, 3))})
    rows = ix.measure([large["l"], small["s"]], "participation_ratio").rows()
    assert rows[0]["interval_method"] == "jackknife(32)"


def test_missing_labels_are_counted_and_fail_only_who_needs_them():
    X = np.random.default_rng(0).standard_normal((20, 3))
    result = ix.measure(X, ["effective_rank", "class_separation"], labels=["a", None] * 10, interval=None)
    assert result.column("status") == ["ok", "degenerate"]
    assert "no value for 10 of the 20 rows" in result.rows()[1]["reason"]
