"""What `Dictionary.features` finds, against the dense codes and against what was planted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.dictionaries import Dictionary, Features
from inscape.dictionaries.reading.choosing import Best, Windows, mixed
from inscape.dictionaries.reading.gathering import COMPANY, RESERVOIR
from inscape.dictionaries.reading.logits import extremes, output_map
from inscape.errors import DegenerateInputError, DictionaryError, StimuliError, StoreCorruptError
from tests.unit.dictionaries.token_scene import WORDS, reading, texts, token_view, with_rows


def mixture(m: int = 12, d: int = 6) -> tuple[Dictionary, np.ndarray]:
    """Features that several tokens share, and the table of rows by token."""
    rng = np.random.default_rng(11)
    return reading(rng.standard_normal((m, d)) / d**0.5), rng.standard_normal((WORDS, d))


@pytest.fixture(scope="module")
def scene():
    """A dictionary, its rows, what was found, and the dense codes."""
    sae, table = mixture()
    view = token_view(table=table)
    rows = view.numpy() + 0.3 * np.random.default_rng(12).standard_normal(view.shape).astype(np.float32)
    view = with_rows(view, rows)
    return sae, view, sae.features(view, context=(3, 2), examples=6), sae.encode(rows).numpy()


def test_numbers_equal_those_of_the_dense_codes(scene):
    _, view, found, codes = scene
    active = codes > 0
    np.testing.assert_array_equal(found.column("count"), active.sum(0))
    np.testing.assert_allclose(found.column("density"), active.mean(0))
    np.testing.assert_allclose(found.column("mean"), codes.sum(0) / active.sum(0), rtol=1e-6)
    np.testing.assert_allclose(found.column("largest"), codes.max(0), rtol=1e-6)
    first = (view.column("half") == "first").astype(float)
    for feature in found:
        for name, value in feature.labels:
            wanted = first if name == "half = first" else 1 - first
            assert value == pytest.approx(np.corrcoef(codes[:, feature.index], wanted)[0, 1], abs=1e-6)


def test_the_largest_activations_are_shown_each_stretch_of_text_once(scene):
    _, view, found, codes = scene
    for feature in found:
        rows = found.arrays["rows"][feature.index, 0]
        taken: list[int] = []
        for row in np.argsort(-codes[:, feature.index], kind="stable")[:24]:
            if all(abs(row - other) >= 6 or row // 20 != other // 20 for other in taken) and len(taken) < 6:
                taken.append(int(row))
        assert rows[rows >= 0].tolist() == taken
        best = feature.examples["top"][0]
        assert best.activation == pytest.approx(codes[taken[0], feature.index])
        assert best.words[best.center] == str(view.column("token_id")[taken[0]])
        assert (best.stimulus, best.position) == (view.ids[taken[0]], view.position[taken[0]])


def test_every_passage_is_the_text_with_the_activations_of_its_tokens(scene):
    _, view, found, codes = scene
    tokens = view.column("token_id").astype(str)
    for feature in (found[0], found[7]):
        for kind in ("top", "quantile", "random"):
            for one, row in zip(
                feature.examples[kind], found.arrays["rows"][feature.index, ("top", "quantile", "random").index(kind)], strict=False
            ):
                place = view.position[row]
                mine = np.arange(row - min(3, place), row + min(2, 19 - place) + 1)
                assert one.words == tuple(tokens[mine])
                np.testing.assert_allclose(one.activations, codes[mine, feature.index], rtol=1e-6)
                assert one.activations[one.center] > 0
                assert one.begins == (place < 3) and one.ends == (place > 17)
        shown = [example.activation for example in feature.examples["quantile"]]
        assert shown[0] > shown[-1]


def test_silent_passages_are_silent():
    ids = texts()
    found = reading(np.eye(WORDS)).features(token_view(ids))
    for feature in found:
        assert len(feature.examples["silent"]) == 12
        assert all(str(feature.index) not in one.words and not any(one.activations) for one in feature.examples["silent"])


def test_company_is_the_phi_coefficient():
    sae, table = mixture(m=8)
    view = token_view(texts(4, 12), table)  # few rows: each feature's company is counted in full
    found, active = sae.features(view), sae.encode(view).numpy() > 0
    assert found.column("count").max() <= COMPANY
    for feature in found:
        for other, value in feature.partners:
            assert value == pytest.approx(np.corrcoef(active[:, feature.index], active[:, other])[0, 1], abs=1e-6)
    phi = np.corrcoef(active.T)
    np.fill_diagonal(phi, 0)
    best = [max((value for _, value in feature.partners), default=0.0) for feature in found]
    np.testing.assert_allclose(best, np.where(phi.max(1) > 0.05, phi.max(1), 0), atol=1e-6)


def test_neighbors_are_the_largest_cosines(scene):
    sae, _, found, _ = scene
    W = sae.W_dec.numpy() / np.linalg.norm(sae.W_dec.numpy(), axis=1, keepdims=True)
    cosines = W @ W.T
    np.fill_diagonal(cosines, -2)
    for feature in found:
        assert [other for other, _ in feature.neighbors] == np.argsort(-cosines[feature.index])[:6].tolist()
        assert feature.neighbors[0][1] == pytest.approx(cosines[feature.index].max(), abs=1e-6)


def test_what_is_chosen_does_not_depend_on_order_or_blocks():
    rng = np.random.default_rng(0)
    features, rows = rng.integers(0, 5, 400), rng.permutation(400)
    values, keys = rng.integers(1, 9, 400).astype(np.float32), rng.integers(0, 2**63, 400).astype(np.uint64)
    held: list[np.ndarray] = []
    for cut in (400, 37):
        order = rng.permutation(400)
        best = Best(5, 7)
        for at in range(0, 400, cut):
            mine = order[at : at + cut]
            best.offer(features[mine], rows[mine], values[mine], -values[mine].astype(float), keys[mine])
        held.append(best.rows)
    np.testing.assert_array_equal(held[0], held[1])
    for feature in range(5):
        mine = np.flatnonzero(features == feature)
        wanted = mine[np.lexsort((keys[mine], -values[mine]))][:7]
        np.testing.assert_array_equal(held[0][feature], rows[wanted])


def test_draws_are_uniform_and_each_feature_has_its_own():
    keys = np.random.default_rng(1).integers(0, 2**63, 4000).astype(np.uint64)
    first, second = (mixed(keys, np.full(4000, feature)) for feature in (0, 1))
    assert abs(np.corrcoef(first.astype(float), second.astype(float))[0, 1]) < 0.05
    assert np.histogram(first.astype(float), 8, (0, 2.0**64))[0].std() < 40


def test_windows_stay_inside_their_stimulus():
    windows = Windows(np.array([0, 0, 0, 1, 1]), np.zeros(5, int), np.array([0, 1, 2, 0, 1]), 2, 1)
    np.testing.assert_array_equal(windows.rows(np.array([0, 2, 3, -1])), [[-1, -1, 0, 1], [0, 1, 2, -1], [-1, -1, 3, 4], [-1] * 4])


def test_a_sample_of_the_active_rows_and_no_more_is_kept():
    sae, table = mixture()
    found = sae.features(token_view(texts(200), table))
    assert found.arrays["rows"].shape == (12, 3, 12) and RESERVOIR < found.column("count").min()
    for feature in found:
        places = found.arrays["rows"][feature.index].ravel()
        places = np.sort(places[places >= 0])
        assert (np.diff(places) > 0).all()  # no row twice, whatever the kind


def test_logit_weights_are_the_slope_of_the_logits():
    torch.manual_seed(0)
    net = ix.zoo.GPT(vocab=WORDS, d=8, layers=1, heads=1, context=8).double()
    with torch.no_grad():
        net.norm.weight.uniform_(0.5, 2)
    directions = torch.randn(5, 8).double()
    matrix, words = output_map(net)
    assert words[3] == "3"
    stream, step = torch.randn(8).double(), 1e-6

    def logits(x: torch.Tensor) -> torch.Tensor:
        frozen = (stream - stream.mean()).square().mean().add(net.norm.eps).sqrt()  # the length is the same for all tokens
        return ((x - x.mean()) / frozen * net.norm.weight + net.norm.bias) @ net.head.weight.T * frozen

    for direction, weights in zip(directions, directions.float() @ matrix.T, strict=True):
        slope = (logits(stream + step * direction) - logits(stream - step * direction)) / (2 * step)
        torch.testing.assert_close(weights.double(), slope - slope.mean(), atol=1e-4, rtol=1e-4)
    high, values, low, _ = extremes(directions, matrix, 3)
    dense = directions.float() @ matrix.T
    assert torch.equal(high[:, 0], dense.argmax(1)) and torch.equal(low[:, 0], dense.argmin(1))
    torch.testing.assert_close(values[:, 0], dense.amax(1))
    with pytest.raises(DictionaryError, match="3 units, the map to the logits 8"):
        extremes(directions[:, :3], matrix, 2)
    with pytest.raises(DictionaryError, match=r"shape \(2, 3\) and 1 words"):
        output_map((torch.ones(2, 3), ["a"]))


def test_saved_and_loaded_they_are_the_same(scene, tmp_path):
    _, _, found, _ = scene
    found.save(tmp_path / "kept")
    back = Features.load(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"features.json", "features.parquet", "features.safetensors"}
    assert back.table.equals(found.table) and back.settings == json.loads(json.dumps(found.settings))
    assert [repr(one) for one in back] == [repr(one) for one in found]
    assert back.rules == found.rules
    with pytest.raises(DictionaryError, match="holds no features"):
        Features.load(tmp_path)
    (tmp_path / "kept" / "features.safetensors").write_bytes(b"short")
    with pytest.raises(StoreCorruptError, match="missing or damaged"):
        Features.load(tmp_path / "kept")


def test_some_can_be_selected_found_and_described_anew(scene):
    _, _, found, _ = scene
    some = found.select([7, 2])
    assert [one.index for one in some] == [7, 2] and repr(some[2]) == repr(found[2]) and len(some) == 2
    with pytest.raises(IndexError, match="2 of them are selected; there is no feature 3"):
        some[3]
    told = found.described({2: "my own words"})
    assert told[2].description == "my own words" and told[3].description == found[3].description
    assert [one.index for one in told.find("OWN words")] == [2]
    with pytest.raises(IndexError, match="no feature 99"):
        found.described({99: "?"})
    with pytest.raises(DictionaryError, match="no column 'densty'"):
        found.column("densty")
    assert len(found.frame()) == 12


def test_a_dictionary_shows_its_features(scene):
    sae, _view, found, _ = scene
    assert sae[3].description == found[3].description
    assert "Largest activations" in sae[3]._repr_html_() and "<script" not in sae[3]._repr_html_()
    assert "active in" in repr(sae[3]) and "[" in repr(sae[3]).splitlines()[-1]
    assert len(found._repr_html_()) < 60_000
    fresh = reading(sae.W_dec.numpy())
    before = fresh[3]
    assert before.description is None and before.density is None
    assert [other for other, _ in before.neighbors] == [other for other, _ in found[3].neighbors]
    assert "dictionary.features(view)" in repr(before) and "dictionary.features(view)" in before._repr_html_()
    assert len(list(fresh)) == 12 and fresh[-1].index == 11
    for one in (fresh, found):
        with pytest.raises(IndexError, match="there is no feature 12"):
            one[12]


def test_rows_that_are_whole_stimuli_are_told_by_their_texts():
    rows = np.eye(6, dtype=np.float32).repeat(8, 0)
    names = [f"text {i}" for i in range(48)]
    found = reading(np.eye(6)).features(rows, names)
    assert {one.text for one in found[2].examples["top"]} <= {f"text {i}" for i in range(16, 24)}
    assert reading(np.eye(6)).features(rows)[0].examples["top"][0].text in map(str, range(8))
    with pytest.raises(StimuliError, match="stimuli has 3 entries"):
        reading(np.eye(6)).features(rows, ["a", "b", "c"])


def test_signed_and_crossing_dictionaries_have_features_too():
    rng = np.random.default_rng(3)
    view = token_view(table=rng.standard_normal((WORDS, 6)))
    pca = ix.decompose(view, ix.dictionaries.PCA(width=3))
    codes = pca.encode(view).numpy()
    found = pca.features(view)
    np.testing.assert_allclose(np.abs(found.column("largest")), np.abs(codes).max(0), rtol=1e-5)
    pair = [view, with_rows(view, view.numpy()[:, ::-1].copy())]
    both = ix.decompose(pair, ix.dictionaries.Crosscoder(width=8, k=2), rows=2048)
    np.testing.assert_array_equal(both.features(pair).column("count"), (both.encode(pair).numpy() != 0).sum(0))


def test_odd_requests_are_refused():
    sae, table = mixture()
    view = token_view(table=table)
    with pytest.raises(DictionaryError, match="at least 4 examples"):
        sae.features(view, examples=3)
    with pytest.raises(DictionaryError, match="no negative context"):
        sae.features(view, context=(-1, 2))
    with pytest.raises(DegenerateInputError, match="has no rows"):
        sae.features(view.select(rows=slice(0, 0)))
    with pytest.raises(DictionaryError, match="reads 6"):
        sae.features(token_view())


def test_features_that_are_never_active_are_told_so():
    sae, table = mixture()
    sae.tensors["b_enc"][4] = -1e3
    found = sae.features(token_view(table=table))
    assert found[4].description == "too rare to describe (0 rows)" and found[4].density == 0
    assert found.result.value(measure="alive") == pytest.approx(11 / 12)
    assert np.isnan(found.column("detection")[4])
