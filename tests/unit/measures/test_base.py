"""The measure object: what it injects, what it refuses, what it says."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError, UnknownMeasureError
from inscape.measures import registry
from inscape.measures.base import Measure, RowRoute, check_varies, measure
from inscape.measures.facts import Facts, ordered, sections
from inscape.summaries import Moments, Need, Neighbors

FACTS: dict[str, Any] = {
    "invariant": {"translation"},
    "sensitive": {"scale"},
    "range": (0, math.inf),
    "source": "nobody",
    "higher": "more",
}


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures registered in a test leave with it."""
    ix.measures.names()
    monkeypatch.setattr(registry, "_measures", dict(registry._measures))


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((40, 5))


def test_every_built_in_measure_is_found() -> None:
    assert ix.measures.names() == [
        "active_units",
        "alignment",
        "alpha_req",
        "attention_entropy",
        "betti_curve",
        "cca_mean",
        "cca_r2",
        "cdnv",
        "cknna",
        "class_separation",
        "coding_rate",
        "compositional_accuracy",
        "cycle_knn",
        "dci_completeness",
        "dci_disentanglement",
        "dci_informativeness",
        "distance_correlation",
        "distance_correlation_debiased",
        "edit_knn",
        "effective_rank",
        "effective_rank_covariance",
        "factor_orthogonality",
        "factor_rank",
        "feature_correlation",
        "gnc2",
        "gride",
        "gulp",
        "head_diversity",
        "ima_score",
        "imd",
        "infomec_compactness",
        "infomec_explicitness",
        "infomec_modularity",
        "isoscore",
        "jaccard_knn",
        "latent_vector_field",
        "lcs_knn",
        "lidar",
        "linear_cka",
        "linear_cka_debiased",
        "linear_factorization",
        "linear_r2",
        "linguistic_collapse",
        "local_dimension",
        "lpca_dimension",
        "manifold_curvature",
        "massive_activations",
        "massive_qk",
        "mean_cosine",
        "mean_cosine_centered",
        "mean_cosine_pcs_removed",
        "mean_sampled_gap",
        "mig",
        "minibatch_cka",
        "mixed_units",
        "mle_dimension",
        "mle_dimension_curve",
        "mle_dimension_mean",
        "modality_gap",
        "moran_i",
        "mutual_knn",
        "mutual_knn_adjusted",
        "nc1",
        "nc1_trace",
        "nc2_equiangular",
        "nc2_equinorm",
        "nc2_etf",
        "nc2_max_angle",
        "nc3_duality",
        "nc4_agreement",
        "neco",
        "neuron_match",
        "neuron_match_soft",
        "numerical_rank",
        "ollivier_ricci",
        "one_to_many_lasso",
        "oversquashing",
        "parameter_effective_rank",
        "participation_ratio",
        "partition_isotropy",
        "passive_units",
        "permutation_procrustes",
        "persistence_entropy",
        "persistence_h0",
        "persistence_h1",
        "posterior_kl",
        "procrustes",
        "procrustes_distance",
        "procrustes_normalized",
        "pwcca",
        "pwcca_sim_metric",
        "rank_collapse",
        "rank_similarity",
        "rankme",
        "rbf_cka",
        "redundancy",
        "regression_dimension",
        "relative_similarity",
        "representational_collapse",
        "ricci_communities",
        "ricci_difference",
        "ridge_r2",
        "rsa_bures",
        "rsa_corr",
        "rsa_corr_whitened",
        "rsa_cosine",
        "rsa_cosine_whitened",
        "rsa_rho_a",
        "rsa_spearman",
        "rsa_tau_a",
        "rsm_norm_difference",
        "rtd",
        "sap",
        "second_order_cosine",
        "shape_alpha",
        "shape_alpha_netrep",
        "soft_matching",
        "spectral_alignment",
        "spectrum_decay",
        "stable_rank",
        "statistics_difference",
        "stitch_direct",
        "stochastic_shape",
        "stochastic_shape_energy",
        "superposition",
        "svcca",
        "svcca_anatome",
        "token_uniformity",
        "topographic_similarity",
        "trsa",
        "trsa_geodesic",
        "two_nn",
        "two_nn_curve",
        "two_nn_ml",
        "uniformity",
        "variability_collapse",
        "von_neumann_entropy",
        "weight_alpha",
    ]
    assert [one.name for one in ix.measures.all_measures()] == ix.measures.names()
    assert set(ix.measures.names()) <= set(dir(ix.measures))
    assert ix.measures.two_nn is ix.measures.get("two_nn")


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(UnknownMeasureError, match="there is no measure 'linear_ckq'; the nearest: 'linear_cka', "):
        ix.measures.get("linear_ckq")
    with pytest.raises(AttributeError, match="there is no measure 'two_n'; the nearest: 'two_nn'"):
        ix.measures.two_n


def test_the_signature_is_the_plan() -> None:
    knn = ix.measures.mutual_knn
    assert knn.arity == 2
    assert not knn.labeled
    assert knn.options == {"k": 10}
    assert knn.needs == {side: (Neighbors, {"metric": "cosine", "center": False, "k": 10}) for side in ("x", "y")}
    bound = knn.with_options(k=3)
    assert bound.label == "mutual_knn(k=3)"
    assert bound.needs["x"][1]["k"] == 3
    assert knn.with_options(k=10).label == "mutual_knn"
    assert ix.measures.effective_rank.needs == {"moments": (Moments, {})}
    assert ix.measures.class_separation.labeled
    assert ix.measures.linear_cka.arity == 2


def test_facts_are_closed_under_what_follows_from_them() -> None:
    assert {"rotation", "scale", "permutation", "unit_scale"} <= ix.measures.cca_mean.invariant
    assert "permutation" in ix.measures.effective_rank.invariant
    assert ordered({"scale", "translation"}) == ["translation", "scale"]


@pytest.mark.parametrize(
    "change,text",
    [
        ({"invariant": {"rotations"}}, r"unknown facts \['rotations'\]; a measure chooses from \['linear'"),
        ({"undefined": {"empty"}}, r"unknown facts \['empty'\]; a measure chooses from \['constant'"),
        ({"invariant": {"linear"}}, r"declared both invariant and sensitive to \['scale'\]"),
        ({"range": (0, "n * d")}, "unknown upper bound 'n \\* d'; write a number or one of"),
        ({"status": "new"}, "status 'new' is none of"),
        ({"source": ""}, "a measure names its source"),
    ],
)
def test_contradictions_are_refused(scratch: None, change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):

        @measure(**{**FACTS, **change})
        def odd(moments: Moments) -> float:
            """Odd."""
            return 0.0


def test_names_are_unique_and_not_reserved(scratch: None) -> None:
    def two_nn(moments: Moments) -> float:
        """Another one."""
        return 0.0

    with pytest.raises(ValueError, match=r"two measures are called 'two_nn': one in inscape\.measures\.dimension, one in .*; rename one"):
        measure(**FACTS)(two_nn)

    def compare(moments: Moments) -> float:
        """A verb."""
        return 0.0

    with pytest.raises(ValueError, match="a measure cannot be called 'compare': the package uses that name"):
        measure(**FACTS)(compare)


def test_parameters_must_be_summaries(scratch: None) -> None:
    def odd(rows: np.ndarray) -> float:
        """Odd."""
        return 0.0

    with pytest.raises(ValueError, match="odd: parameter 'rows' must be annotated with a summary class"):
        measure(**FACTS)(odd)

    def none(*, k: int = 3) -> float:
        """None."""
        return 0.0

    with pytest.raises(ValueError, match="none asks for no summary"):
        measure(**FACTS)(none)

    def pair(x: Annotated[Neighbors, Need(k=2)], y: Annotated[Neighbors, Need(k=2)]) -> float:
        """Pair."""
        return 0.0

    with pytest.raises(ValueError, match=r"pair: of a pair, higher means one of \('more similar', 'more different'\), not 'more'"):
        measure(**FACTS)(pair)


def test_a_new_measure_is_a_function_of_arrays(scratch: None, rows: np.ndarray) -> None:
    @measure(**FACTS)
    def total_spread(moments: Moments, *, power: float = 1.0) -> float:
        """The spread."""
        return moments.trace**power

    assert isinstance(total_spread, Measure)
    expected = ((rows - rows.mean(0)) ** 2).sum()
    assert total_spread(rows) == pytest.approx(expected)
    assert total_spread(rows, power=0.5) == pytest.approx(math.sqrt(expected))
    assert total_spread(torch.from_numpy(rows)) == total_spread(rows)
    assert ix.measures.get("total_spread") is total_spread
    assert ix.measures.total_spread is total_spread
    assert total_spread.evaluate(moments=Moments.of(rows)) == total_spread(rows)
    assert repr(total_spread) == "<measure total_spread of one system, 0 to ∞: The spread.>"


def test_no_value_is_ever_nan_or_infinite(scratch: None, rows: np.ndarray) -> None:
    @measure(**FACTS)
    def broken(moments: Moments, *, value: float = math.nan) -> float:
        """Broken."""
        return value if value else 1 / value

    with pytest.raises(DegenerateInputError, match=r"broken has no finite value here \(it came out as nan\)"):
        broken(rows)
    with pytest.raises(DegenerateInputError, match=r"broken\(value=inf\) has no finite value"):
        broken(rows, value=math.inf)
    with pytest.raises(DegenerateInputError, match=r"broken\(value=0\) leaves the range of fp64"):
        broken(rows, value=0)


def test_rows_are_used_where_the_summaries_are_not_enough(scratch: None, rows: np.ndarray) -> None:
    @measure(**FACTS, rows=RowRoute(lambda moments: moments.n < 30, lambda X: float(len(X))))
    def routed(moments: Moments) -> float:
        """Routed."""
        return -1.0

    assert routed(rows) == -1.0
    assert routed(rows[:20]) == 20.0
    assert routed.evaluate(moments=Moments.of(rows[:20])) == -1.0


@pytest.mark.parametrize(
    "name,given,error,text",
    [
        ("linear_cka", lambda X: (X,), TypeError, "linear_cka takes two inputs, X and Y"),
        ("two_nn", lambda X: (X, X), TypeError, "two_nn takes one input, X"),
        ("class_separation", lambda X: (X,), TypeError, r"class_separation needs labels: class_separation\(X, labels\)"),
        ("linear_cka", lambda X: (X, X[:30]), StoreMismatchError, r"linear_cka: X has shape \(40, 5\) and Y \(30, 5\)"),
        ("class_separation", lambda X: (X, [0, 1]), StoreMismatchError, "class_separation: 2 labels for 40 rows"),
        ("class_separation", lambda X: (X, "kind"), TypeError, "labels='kind' names a column, but X is ndarray, not a view"),
        ("two_nn", lambda X: (X[0],), DegenerateInputError, r"two_nn: X has shape \(5,\); expected \[n, d\]"),
        ("two_nn", lambda X: (X[:3],), TooFewStimuliError, "two_nn needs at least 10 rows, got 3; use more stimuli"),
        ("linear_cka", lambda X: (X, 0 * X + 0.1), DegenerateInputError, r"linear_cka: Y has 40 equal rows \(shape \(40, 5\)\)"),
        ("two_nn", lambda X: (np.array([["a", "b"]]),), DegenerateInputError, "two_nn: expected numbers, got an array of dtype <U1"),
    ],
)
def test_bad_input_is_refused_in_words(rows: np.ndarray, name: str, given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ix.measures.get(name)(*given(rows))


def test_options_and_summaries_are_checked_by_name(rows: np.ndarray) -> None:
    with pytest.raises(TypeError, match="mutual_knn has no option 'K'; its options: 'k'"):
        ix.measures.mutual_knn(rows, rows, K=3)
    with pytest.raises(TypeError, match="two_nn has no option 'k'; it has no options"):
        ix.measures.two_nn(rows, k=3)
    with pytest.raises(TypeError, match="two_nn takes no labels"):
        ix.measures.two_nn(rows, labels=[0] * 40)
    with pytest.raises(TypeError, match=r"effective_rank is evaluated on the summaries \['moments'\], got \['rows'\]"):
        ix.measures.effective_rank.evaluate(rows=rows)


def test_views_and_single_site_stores_stand_for_their_rows(rows: np.ndarray) -> None:
    kinds = ["a", "b"] * 20
    store = ix.Store.from_arrays({"site": rows}, stimuli={"stimulus": [f"s{i}" for i in range(40)], "kind": kinds})
    value = ix.measures.effective_rank(rows)
    assert ix.measures.effective_rank(store["site"]) == pytest.approx(value, abs=1e-12)
    assert ix.measures.effective_rank(store) == pytest.approx(value, abs=1e-12)
    assert ix.measures.class_separation(store["site"], "kind") == pytest.approx(ix.measures.class_separation(rows, kinds), abs=1e-12)
    other = ix.Store.from_arrays({"site": rows[::-1].copy()}, stimuli={"stimulus": [f"s{i}" for i in range(39, -1, -1)]})
    assert ix.measures.linear_cka(store["site"], other["site"]) == pytest.approx(1.0, abs=1e-9)  # paired by stimulus, not by place


def test_check_varies_reads_on_only_where_it_must() -> None:
    check_varies(torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 2.0]]))
    with pytest.raises(DegenerateInputError, match=r"X has 3 equal rows \(shape \(3, 2\)\): a constant site says nothing"):
        check_varies(torch.ones(3, 2))


def test_table_has_what_the_docs_and_the_command_line_show() -> None:
    table = {row["name"]: row for row in ix.measures.table()}
    assert list(table) == ix.measures.names()
    row = table["procrustes"]
    assert row["arity"] == "a pair"
    assert row["range"] == "0 to π/2"
    assert row["higher"] == "more different"
    assert row["invariant"] == ["translation", "rotation", "scale", "permutation", "row_order"]
    assert row["sensitive"] == ["linear", "unit_scale"]
    assert row["status"] == "stable"
    assert row["what"].startswith("The angle between two representations after the best rotation")
    assert table["effective_rank"]["range"] == "1 to min(n - 1, d)"
    assert table["mutual_knn"]["options"] == {"k": 10}
    assert all(row[key] for row in table.values() for key in ("what", "source", "cost", "bias", "range", "higher", "needs"))


def test_what_decided_the_value_is_on_record() -> None:
    assert ix.measures.alpha_req.record(1000, 64) == {"first": 11, "last": 100, "first_rank": 11, "last_rank": 64}
    assert ix.measures.alpha_req.with_options(last=40).record(1000, 64)["last_rank"] == 40
    assert ix.measures.mutual_knn.record(1000, 64) == {"k": 10}
    assert ix.measures.two_nn.record(1000, 64) == {}


def test_limits_follow_the_shape() -> None:
    assert ix.measures.effective_rank.facts.limits(10, 30) == (1, 9)
    assert ix.measures.effective_rank.facts.limits(50, 30) == (1, 30)
    assert ix.measures.effective_rank.range == (1, math.inf)
    assert isinstance(ix.measures.effective_rank.facts, Facts)


def test_sections_of_a_docstring() -> None:
    parts = sections("First.\n\n    Formula.\n\n    Returns:\n        A number.\n\n    Source:\n        Me:\n        myself.\n")
    assert parts == {"": "First.\n\nFormula.", "Returns": "A number.", "Source": "Me:\nmyself."}


def test_a_broken_plugin_is_reported_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        value = "broken_package:measures"

        def load(self) -> None:
            raise ImportError("no such thing")

    ix.measures.names()
    monkeypatch.setattr(registry, "_discovered", [])
    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()] if group == "inscape.measures" else [])
    with pytest.warns(ix.errors.InscapeWarning, match="entry point 'broken_package:measures' could not be loaded: ImportError"):
        assert "two_nn" in registry.names()
