"""The verb: what it takes, several at a time, interruption, divergence, provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.dictionaries import Dictionary, run
from inscape.dictionaries.rows import Frame, batches, frame_of
from inscape.dictionaries.schedule import default_batch
from inscape.dictionaries.training import Trainer
from inscape.errors import DegenerateInputError, DictionaryError, DivergenceError, StoreCorruptError, StoreMismatchError
from tests.unit.dictionaries.scene import features, sparse_rows

X = sparse_rows(3000).astype(np.float32)
TOP = ix.dictionaries.TopK(width=64, k=3)


def same(a: Dictionary, b: Dictionary) -> bool:
    return all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_known_features_come_back() -> None:
    sae = ix.decompose(sparse_rows(20_000), TOP, rows=100_000, seed=0)
    directions = sae.W_dec.numpy() / np.linalg.norm(sae.W_dec.numpy(), axis=1, keepdims=True)
    best = (features() @ directions.T).max(1)
    assert best.mean() > 0.95


def test_one_of_each_is_a_dictionary_and_several_are_a_list() -> None:
    store = ix.Store.from_arrays({"a": X, "b": X[:, ::-1].copy()})
    recipes = [TOP, ix.dictionaries.BatchTopK(width=32, k=2)]
    alone = ix.decompose(store["a"], TOP, rows=2560, seed=1)
    assert isinstance(alone, Dictionary)
    many = ix.decompose(store, recipes, rows=2560, seed=[1, 2])
    told = [(one.site, one.recipe.kind, one.info["seed"]) for one in many]
    assert told == [(site, kind, seed) for site in "ab" for kind in ("TopK", "BatchTopK") for seed in (1, 2)]
    assert same(many[0], alone)  # what is trained beside it changes nothing
    assert not torch.equal(many[0].W_dec, many[1].W_dec)
    assert len(ix.decompose(store["a"], [TOP], rows=2560)) == 1


def test_what_it_takes() -> None:
    expected = ix.decompose(X, TOP, rows=1024)
    for data in (torch.from_numpy(X), ix.Store.from_arrays(X), {"X": X}):
        found = ix.decompose(data, TOP, rows=1024)
        assert same(found[0] if isinstance(found, list) else found, expected)


def test_straight_from_a_model() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(16, 12), torch.nn.ReLU())
    sae = ix.decompose((net, torch.from_numpy(X), "0"), ix.dictionaries.TopK(width=24, k=3), rows=1024)
    assert sae.site == "0" and sae.d == 12
    with torch.no_grad():
        assert same(sae, ix.decompose(ix.Store.from_arrays({"0": net[0](torch.from_numpy(X))})["0"], sae.recipe, rows=1024))


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [TOP, ix.dictionaries.BatchTopK(width=32, k=2), ix.dictionaries.ReLU(width=32), ix.dictionaries.JumpReLU(width=32, l0=3)]
    options: dict[str, Any] = {"rows": 256 * 24, "batch": 256, "seed": 4, "every": 7}
    whole = ix.decompose(X, recipes, **options)
    advance = Trainer.advance

    def interrupted(self: Trainer, x: Any, y: Any) -> None:
        if self.step == 17:
            raise KeyboardInterrupt
        advance(self, x, y)

    monkeypatch.setattr(Trainer, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ix.decompose(X, recipes, to=tmp_path / "run", **options)
    monkeypatch.setattr(Trainer, "advance", advance)
    steps: list[int] = []
    monkeypatch.setattr(Trainer, "advance", lambda self, x, y: (steps.append(self.step), advance(self, x, y))[1])
    resumed = ix.decompose(X, recipes, to=tmp_path / "run", **options)
    assert min(steps) == 14
    assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
    assert [one.info["history"] for one in whole] == [one.info["history"] for one in resumed]
    steps.clear()
    again = ix.decompose(X, recipes, to=tmp_path / "run", **options)
    assert not steps and all(same(a, b) for a, b in zip(whole, again, strict=True))
    with pytest.raises(DictionaryError, match="holds a training with seed=4, this call has seed=5"):
        ix.decompose(X, recipes, to=tmp_path / "run", **{**options, "seed": 5})


def test_divergence_names_step_and_cause_and_leaves_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ix.decompose(X, TOP, rows=256 * 12, batch=256, every=5)
    learn = type(TOP).learn

    def broken(self: Any, p: Any, x: Any, y: Any, moment: Any) -> Any:
        learned = learn(self, p, x, y, moment)
        if moment.step == 8:
            learned.error = learned.error * float("nan")
        return learned

    monkeypatch.setattr(type(TOP), "learn", broken)
    with pytest.raises(DivergenceError, match=rf"TopK.*diverged at step 8 of 12: the loss is nan.*last good state is in {tmp_path}"):
        ix.decompose(X, TOP, rows=256 * 12, batch=256, every=5, to=tmp_path)
    with pytest.raises(DivergenceError, match="give to= for checkpoints"):
        ix.decompose(X, TOP, rows=256 * 12, batch=256)
    monkeypatch.setattr(type(TOP), "learn", learn)
    assert same(ix.decompose(X, TOP, rows=256 * 12, batch=256, every=5, to=tmp_path), whole)


def test_a_rate_far_too_high_diverges() -> None:
    with pytest.raises(DivergenceError, match=r"share of variance lost is .* Give a lower rate="):
        ix.decompose(X, ix.dictionaries.ReLU(width=64, l1=0), rows=256 * 40, batch=256, rate=30.0)


def test_every_row_comes_once_before_any_comes_twice() -> None:
    view = ix.Store.from_arrays(np.arange(700.0)[:, None])["X"]
    plain = Frame(torch.zeros(1, dtype=torch.float64), 1.0)
    seen = torch.cat([part[0] for part in batches([view], [plain], 64, steps=22, seed=3)]).flatten()
    assert sorted(seen[:700].tolist()) == list(range(700)) and sorted(seen[700:1400].tolist()) == list(range(700))
    assert seen[:700].tolist() != seen[700:1400].tolist()
    late = torch.cat([part[0] for part in batches([view], [plain], 64, steps=22, start=13, seed=3)]).flatten()
    assert late.tolist() == seen[13 * 64 :].tolist()


def test_pools_cover_all_rows_where_memory_holds_only_some(monkeypatch: pytest.MonkeyPatch) -> None:
    from inscape.dictionaries import rows

    monkeypatch.setattr(rows, "POOL_BYTES", 4 * 2 * 100)
    monkeypatch.setattr(rows, "_PIECE", 50)
    view = ix.Store.from_arrays(np.arange(1030.0)[:, None])["X"]
    plain = Frame(torch.zeros(1, dtype=torch.float64), 1.0)
    seen = torch.cat([part[0] for part in batches([view], [plain], 103, steps=10)]).flatten()
    assert sorted(seen.tolist()) == list(range(1030))


def test_frames_are_mean_and_root_mean_square_or_a_whitening() -> None:
    view = ix.Store.from_arrays(sparse_rows(2000) + 1e4)["X"]
    rows = view.numpy()
    frame = frame_of(view)
    np.testing.assert_allclose(frame.mean.numpy(), rows.mean(0), rtol=1e-12)
    assert frame.scale == pytest.approx((rows - rows.mean(0)).std(), rel=1e-9)
    white = frame_of(view, whiten=True)
    np.testing.assert_allclose(np.cov(white.apply(view.torch()).numpy().T, bias=True), np.eye(16), atol=1e-4)


@pytest.mark.parametrize("normalize", ["scale", "whiten"])
@pytest.mark.parametrize("recipe", [TOP, ix.dictionaries.Gated(width=32), ix.dictionaries.JumpReLU(width=32, l0=3)], ids=lambda r: r.kind)
def test_the_normalization_is_folded_exactly(recipe: Any, normalize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes and reconstructions of raw rows equal those of normalized rows under the tensors of the training."""
    kept: list[Any] = []
    fold = run.folded
    monkeypatch.setattr(run, "folded", lambda recipe, p, inputs, outputs: (kept.append((p, inputs)), fold(recipe, p, inputs, outputs))[1])
    sae = ix.decompose(X.astype(np.float64), recipe, rows=5120, normalize=normalize).to(dtype=torch.float64)
    p, (frame,) = kept[0]
    p = {name: value.double() for name, value in p.items()}
    inside = {"W_enc": p["encoder"].T, "W_dec": p["decoder"], "b_enc": p["b_enc"], "b_dec": p["b_dec"], **recipe.extras(p)}
    rows = torch.from_numpy(X).double() - frame.mean
    rows = rows / frame.scale if frame.inward is None else rows @ frame.inward.double()
    codes = recipe.encode(inside, rows)
    grown = frame.scale if frame.inward is None else 1.0
    torch.testing.assert_close(sae.encode(X).torch(), codes.torch() * grown, rtol=1e-4, atol=2e-3)
    back = recipe.decode(inside, codes)
    back = (back * frame.scale if frame.outward is None else back @ frame.outward.double()) + frame.mean
    torch.testing.assert_close(sae.reconstruct(X), back, rtol=1e-4, atol=2e-3)
    if normalize == "scale":
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.m, dtype=torch.float64))


def test_the_threshold_of_a_batch_rule_gives_the_wanted_mean() -> None:
    sae = ix.decompose(X, ix.dictionaries.BatchTopK(width=64, k=3), rows=256 * 30)
    assert len(sae.encode(X).indices) == pytest.approx(3 * len(X), rel=0.002)


def test_provenance(tmp_path: Path) -> None:
    store = ix.Store.from_arrays({"blocks.0.resid_post": X}, system="net")
    sae = ix.decompose(store["blocks.0.resid_post"], TOP, rows=1100, seed=9, to=tmp_path / "sae")
    told = json.loads((tmp_path / "sae" / "dictionary.json").read_text())
    assert told["format_version"] == 1
    assert told["recipe"] == {"kind": "TopK", "width": 64, "k": 3, "auxiliary": 1 / 32, "coarse": False}
    assert {key: told["info"][key] for key in ("system", "site", "seed", "steps", "batch", "rows")} == {
        "system": "net",
        "site": "blocks.0.resid_post",
        "seed": 9,
        "steps": 4,
        "batch": 256,
        "rows": 1024,
    }
    assert "net/blocks.0.resid_post: 16 units → 64 features" in repr(sae)


def test_default_batches_are_those_of_the_rule() -> None:
    assert [default_batch(rows) for rows in (1000, 76_800, 153_599, 307_200, 2_000_000, 10**9)] == [256, 256, 256, 1024, 4096, 4096]


def test_settings_that_make_no_sense() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"rows": 0}, "rows=0; expected a whole number above 0"),
        ({"rows": 100, "batch": 200}, "batch=200 is more than rows=100"),
        ({"rate": -1.0}, "rate=-1.0; expected a finite number above 0"),
        ({"normalize": "zscore"}, "normalize='zscore' is not known"),
        ({"every": 0}, "every=0"),
    ]
    for options, text in cases:
        with pytest.raises(DictionaryError, match=text):
            ix.decompose(X, TOP, **options)
    with pytest.raises(DictionaryError, match="expected a kind of dictionary such as"):
        ix.decompose(X, ["TopK"])
    with pytest.raises(DictionaryError, match="no dictionary was asked for"):
        ix.decompose(X, [])
    with pytest.raises(DictionaryError, match=r"TopK: k=65; expected a whole number from 1 to the width, 64"):
        ix.dictionaries.TopK(width=64, k=65)
    with pytest.raises(DictionaryError, match="must rise and end in the width, 64"):
        ix.dictionaries.Matryoshka(width=64, k=3, prefixes=(32, 16, 64))
    with pytest.raises(AttributeError, match="the kinds of dictionaries are BatchTopK, "):
        ix.dictionaries.Topk


def test_files_that_hold_no_dictionary(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match=r"holds no dictionary: neither dictionary\.json nor a file"):
        Dictionary.load(tmp_path)
    sae = ix.decompose(X, TOP, rows=1024, to=tmp_path / "sae")
    described = tmp_path / "sae" / "dictionary.json"
    text = described.read_text()
    described.write_text(text.replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(DictionaryError, match="dictionary of format 99, this inscape reads up to 2"):
        Dictionary.load(tmp_path / "sae")
    described.write_text("{")
    with pytest.raises(StoreCorruptError, match="cannot be read as the description"):
        Dictionary.load(tmp_path / "sae")
    described.write_text(text.replace("TopK", "TopQ"))
    with pytest.raises(DictionaryError, match="unknown kind of dictionary 'TopQ'; nearest: 'TopK'"):
        Dictionary.load(tmp_path / "sae")
    described.write_text(text)
    (tmp_path / "sae" / "dictionary.safetensors").write_bytes(b"x")
    with pytest.raises(StoreCorruptError, match="missing or damaged"):
        Dictionary.load(tmp_path / "sae")
    with pytest.raises(DictionaryError, match=r"b_enc has shape \(3,\), expected \(64,\)"):
        Dictionary(TOP, {**sae.tensors, "b_enc": torch.zeros(3)})
    with pytest.raises(DictionaryError, match="TopK needs a tensor b_dec"):
        Dictionary(TOP, {name: value for name, value in sae.tensors.items() if name != "b_dec"})
    with pytest.raises(DictionaryError, match="has no tensor 'threshold'"):
        Dictionary(TOP, {**sae.tensors, "threshold": torch.zeros(())})
    with pytest.raises(DictionaryError, match="codes have 3 features"):
        sae.decode(torch.zeros(2, 3))


def test_rows_of_different_stimuli_are_not_paired() -> None:
    a = ix.Store.from_arrays({"in": X}, stimuli=[f"s{i}" for i in range(len(X))])
    b = ix.Store.from_arrays({"out": X}, stimuli=[f"t{i}" for i in range(len(X))])
    from inscape.dictionaries.rows import check_paired

    with pytest.raises(StoreMismatchError, match="belong to different stimuli"):
        check_paired([a["in"], b["out"]])
    with pytest.raises(StoreMismatchError, match="3000 rows"):
        check_paired([a["in"], ix.Store.from_arrays(X[:5])["X"]])


def test_a_store_without_rows_is_refused() -> None:
    with pytest.raises(DegenerateInputError):
        ix.decompose(np.zeros((0, 4)), TOP)


def test_sites_with_other_numbers_of_rows_are_each_read_whole() -> None:
    shifted = np.concatenate([X[:300], X[300:] + 4]).astype(np.float32)
    sites = [ix.Store.from_arrays({"short": X[:300]})["short"], ix.Store.from_arrays({"long": shifted})["long"]]
    recipe = ix.dictionaries.TopK(width=32, k=2)
    for order in (sites, sites[::-1]):
        found = {one.site: one for one in ix.decompose(order, recipe, rows=4096, batch=256)}
        for site in sites:
            assert same(found[site.site], ix.decompose(site, recipe, rows=4096, batch=256))


def test_a_folder_with_other_rows_of_the_same_shape_is_refused(tmp_path: Path) -> None:
    first = ix.decompose(X, TOP, rows=1024, to=tmp_path)
    with pytest.raises(DictionaryError, match="holds a training on other rows"):
        ix.decompose(X[::-1].copy(), TOP, rows=1024, to=tmp_path)
    # The last digits may differ, as where a model gave the rows again on another machine.
    assert same(ix.decompose(X * np.float32(1 + 1e-5), TOP, rows=1024, to=tmp_path), first)


def test_a_difference_is_named_by_its_path(tmp_path: Path) -> None:
    ix.decompose(X, TOP, rows=1024, to=tmp_path)
    with pytest.raises(DictionaryError, match=r"holds a training with recipe\.k=3, this call has recipe\.k=4"):
        ix.decompose(X, ix.dictionaries.TopK(width=64, k=4), rows=1024, to=tmp_path)


def test_options_of_steps_are_refused_by_kinds_without_steps() -> None:
    with pytest.raises(DictionaryError, match=r"PCA is computed from all rows without steps; leave out batch=, normalize="):
        ix.decompose(X, ix.dictionaries.PCA(width=4), batch=3, normalize="whiten")
    found = ix.decompose(X, ix.dictionaries.ICA(width=3, iterations=2), rows=10)
    assert (found.info["rows"], found.info["iterations"], found.info["converged"]) == (3000, 2, False)
    assert ix.decompose(X, ix.dictionaries.SemiNMF(width=3, iterations=30)).info["iterations"] <= 30


def test_other_backends_than_gloo_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("is_initialized", True), ("get_world_size", 2), ("get_backend", "nccl")):
        monkeypatch.setattr(run.processes, name, lambda value=value: value)
    with pytest.raises(DictionaryError, match="talk through 'nccl'.*init_process_group\\(\"gloo\"\\)"):
        ix.decompose(X, TOP, rows=1024)
