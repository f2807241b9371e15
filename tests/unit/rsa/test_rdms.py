"""Stacks of dissimilarity matrices: choosing, joining, pooling, files, and what other libraries make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

import inscape as ix
from inscape.errors import DegenerateInputError, MissingExtraError, ResultError, StoreCorruptError, StoreMismatchError, TooFewStimuliError
from inscape.rsa import RDMs, from_ratings

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((7, 5)), RNG.standard_normal((7, 3))


def stack() -> RDMs:
    return RDMs([pdist(X), pdist(Y)], {"stimulus": list("abcdefg"), "kind": list("xyxyxyx")}, ["ann", "bob"], distance="euclidean")


def test_square_is_scipys_square() -> None:
    assert np.array_equal(stack().square()[1], squareform(pdist(Y)))
    assert np.array_equal(RDMs.from_squares(squareform(pdist(Y))).values[0], pdist(Y))


def test_select_takes_rows_in_the_order_asked_for() -> None:
    rows = [5, 0, 3, 2]
    part = stack().select(stimuli=rows, subjects=["bob" == name for name in ("ann", "bob")])
    assert part.values[0] == pytest.approx(pdist(Y[rows]))
    assert part.ids == ["f", "a", "d", "c"] and part.names == ["bob"]
    assert stack().select(stimuli={"kind": "y"}).ids == ["b", "d", "f"]
    assert stack().select(stimuli={"stimulus": ["b", "a"]}).values[0] == pytest.approx(pdist(X[[0, 1]]))
    with pytest.raises(TooFewStimuliError, match="1 of 7"):
        stack().select(stimuli=[2])
    with pytest.raises(ResultError, match="nearest: 'kind'"):
        stack().select(stimuli={"kidn": "x"})
    with pytest.raises(ResultError, match="twice"):
        stack().select(stimuli=[1, 1, 2])


def test_reorder_by_a_column_and_align_by_id() -> None:
    ordered = stack().reorder("kind")
    assert ordered.ids == ["a", "c", "e", "g", "b", "d", "f"]
    assert stack().with_columns({"size": range(7)}, {"age": [3, 4]}).subjects["age"].tolist() == [3, 4]
    assert ordered.align(stack()).values == pytest.approx(stack().values)
    with pytest.raises(ResultError, match="each of the 7"):
        stack().reorder([0, 1])
    with pytest.raises(StoreMismatchError, match="only in one"):
        stack().align(RDMs(pdist(X), stimuli=list("abcdefz")))


def test_concat_puts_stimuli_in_one_order() -> None:
    both = RDMs.concat([stack(), stack().reorder([6, 5, 4, 3, 2, 1, 0])])
    assert len(both) == 4
    assert both.values[2] == pytest.approx(both.values[0])


def test_iteration_and_names() -> None:
    assert [one.names for one in stack()] == [["ann"], ["bob"]]
    assert stack()["bob"].values[0] == pytest.approx(pdist(Y))
    with pytest.raises(ResultError, match="nearest"):
        stack()["bo"]
    assert stack()[-1].names == ["bob"]


def test_pool_is_the_mean_of_equalized_matrices_and_ignores_missing_pairs() -> None:
    values = stack().values
    unit = values / np.sqrt((values**2).mean(1, keepdims=True))
    assert stack().pool("rsa_cosine").values[0] == pytest.approx(unit.mean(0))
    z = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    assert stack().pool("rsa_corr").values[0] == pytest.approx(z.mean(0) - z.mean(0).min())
    ranks = np.stack([one.argsort().argsort() + 1.0 for one in values])
    assert stack().pool("rsa_spearman").values[0] == pytest.approx(ranks.mean(0))
    holes = values.copy()
    holes[0, 3] = np.nan
    pooled = RDMs(holes).pool("rsa_cosine")
    assert pooled.complete
    assert RDMs(np.where(np.arange(21) == 3, np.nan, values)).pool().complete is False
    with pytest.raises(DegenerateInputError, match="no pooling"):
        stack().pool("rsa_bures")
    with pytest.raises(DegenerateInputError, match="equal dissimilarities"):
        RDMs(np.ones(21)).pool("rsa_corr")


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    kept = RDMs.load(stack().save(tmp_path / "rdms"))
    assert np.array_equal(kept.values, stack().values) and kept.ids == stack().ids and kept.distance == "euclidean"
    assert kept.stimuli["kind"].tolist() == list("xyxyxyx") and kept.names == ["ann", "bob"]
    with pytest.raises(ResultError, match="holds no matrices"):
        RDMs.load(tmp_path)
    (tmp_path / "rdms" / "rdms.safetensors").write_bytes(b"no")
    with pytest.raises(StoreCorruptError, match="damaged"):
        RDMs.load(tmp_path / "rdms")


class Theirs:
    """What a `rsatoolbox.rdm.RDMs` says of itself."""

    def to_dict(self) -> dict[str, object]:
        return {
            "dissimilarities": stack().values,
            "descriptors": {},
            "rdm_descriptors": {"index": [0, 1], "name": ["s1", "s2"]},
            "pattern_descriptors": {"conds": np.array(list("abcdefg")), "index": list(range(7))},
            "dissimilarity_measure": "squared euclidean",
        }


def test_from_rsatoolbox_keeps_descriptors() -> None:
    ours = RDMs.from_rsatoolbox(Theirs())
    assert ours.ids == list("abcdefg") and ours.names == ["s1", "s2"] and ours.distance == "squared_euclidean"
    assert np.array_equal(ours.values, stack().values)


def test_files_of_rsatoolbox_go_both_ways(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="h5py is an optional way in")
    path = stack().to_rsatoolbox(tmp_path / "theirs.h5")
    back = RDMs.load(path)
    assert np.array_equal(back.values, stack().values) and back.ids == stack().ids and back.stimuli["kind"].tolist() == list("xyxyxyx")
    with pytest.raises(ResultError, match="called"):
        stack().to_rsatoolbox(tmp_path / "theirs.pkl")


def test_without_rsatoolbox_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rsatoolbox.rdm", None)
    with pytest.raises(MissingExtraError, match="pip install rsatoolbox"):
        stack().to_rsatoolbox()


@pytest.mark.parametrize(
    "values,match",
    [(np.ones(4), "n\\(n - 1\\)/2"), ([1.0, np.inf, 1.0], "infinite"), (np.ones((2, 2, 2)), "from_squares")],
)
def test_what_is_no_matrix_is_refused(values: object, match: str) -> None:
    with pytest.raises(DegenerateInputError, match=match):
        RDMs(values)


def test_similarities_and_skew_matrices_are_refused() -> None:
    with pytest.raises(DegenerateInputError, match="similarities"):
        RDMs.from_squares(np.corrcoef(X))
    with pytest.raises(DegenerateInputError, match="symmetric"):
        RDMs.from_squares(np.triu(np.ones((3, 3)), 1))
    with pytest.raises(StoreMismatchError, match="2 entries for 3"):
        RDMs([1.0, 2.0, 3.0], ["a", "b"])


def test_summary_goes_into_measures() -> None:
    a, b = stack()
    assert ix.measures.rsa_corr.evaluate(x=a.summary(), y=b.summary()) == pytest.approx(np.corrcoef(pdist(X), pdist(Y))[0, 1])
    with pytest.raises(ResultError, match="choose one"):
        stack().summary()


def test_ratings_become_matrices_with_missing_pairs() -> None:
    table = {
        "first": ["cat", "dog", "cat", "cat", "dog"],
        "second": ["dog", "cat", "car", "dog", "car"],
        "rating": [6, 4, 1, 7, 3],
        "rater": ["r1", "r1", "r1", "r2", "r2"],
    }
    rdms = from_ratings(table, rater="rater", scale=(1, 7))
    assert rdms.ids == ["cat", "dog", "car"] and rdms.names == ["r1", "r2"]
    assert rdms.values == pytest.approx(np.array([[2 / 6, 1, np.nan], [0, np.nan, 4 / 6]]), nan_ok=True)
    assert rdms.subjects["judgments"].tolist() == [3, 2]
    with pytest.raises(StoreMismatchError, match="no column 'ratings'"):
        from_ratings(table, rating="ratings")
    with pytest.raises(DegenerateInputError, match="scale"):
        from_ratings(table, scale=(1, 5))
    with pytest.raises(DegenerateInputError, match="itself"):
        from_ratings({"first": ["a"], "second": ["a"], "rating": [1.0]})
    with pytest.raises(StoreMismatchError, match="not among"):
        from_ratings(table, stimuli=["cat", "dog"])
    with pytest.raises(DegenerateInputError, match="no numbers"):
        from_ratings({"first": ["a"], "second": ["b"], "rating": [np.nan]})
