"""Result: the tidy table, its filters, its round trip to disk, and what it says when asked for what is not there."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inscape.errors import ResultError, StoreCorruptError
from inscape.results import COLUMNS, Curve, Result, format_number, format_value


def row(**columns):
    return {"system": "gpt2", "site": "blocks.0.resid_post", "measure": "two_nn", "value": 7.5, "n": 100, "d": 8} | columns


@pytest.fixture
def profile():
    return Result(
        [
            row(low=7.0, high=8.0, interval_method="jackknife-32"),
            row(site="blocks.1.resid_post", value=9.25),
            row(site="blocks.1.resid_post", measure="two_nn_curve", value=9.0),
            row(site="blocks.1.resid_post", measure="two_nn_curve", value=4.0, axis="scale", at=10),
            row(site="blocks.1.resid_post", measure="two_nn_curve", value=5.0, axis="scale", at=20),
            row(site="embed", measure="alpha_req", value=None, status="failed", reason="12 ranks, 20 needed"),
        ],
        settings={"seed": 0, "measures": ["two_nn"]},
        arrays={"spectrum/embed": np.arange(6.0).reshape(2, 3)},
    )


def test_the_table_has_exactly_the_declared_columns_in_order(profile):
    assert (
        profile.table.column_names
        == list(COLUMNS)
        == (
            "system site system_b site_b measure value low high interval_method null_mean p p_corrected calibrated kind n d d_b "
            "axis at label subject seed status reason"
        ).split()
    )
    assert isinstance(profile.table, pa.Table)
    assert profile.rows()[1]["status"] == "ok"
    assert profile.rows()[1]["low"] is None


def test_an_unknown_column_is_refused_with_the_nearest_name():
    with pytest.raises(ResultError, match="a result has no column 'vaule'; closest: 'value'"):
        Result([row(vaule=3.0)])
    with pytest.raises(ResultError, match="a result has no column 'sites'; closest: 'site'"):
        Result([row()]).where(sites="embed")


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(ResultError, match="wrong type"):
        Result([row(value="high")])


def test_where_takes_values_lists_globs_and_none(profile):
    assert len(profile.where(site="blocks.*")) == 5
    assert len(profile.where(measure=["two_nn", "alpha_req"])) == 3
    assert len(profile.where(axis=None)) == 4
    assert len(profile.where(measure="two_nn_curve", at=[10, 20])) == 2
    assert len(profile.where(site="nowhere")) == 0


def test_value_singles_out_one_number_and_prefers_the_headline_of_a_curve(profile):
    assert profile.value(measure="two_nn", site="blocks.0.resid_post") == 7.5
    assert profile.value(measure="two_nn_curve") == 9.0
    assert profile.value(measure="two_nn_curve", at=20) == 5.0
    with pytest.raises(ResultError, match=r"measure='two_nn' matches 2 rows, expected one; they differ in site"):
        profile.value(measure="two_nn")
    with pytest.raises(ResultError, match="matches 0 rows"):
        profile.value(measure="rankme")
    with pytest.raises(ResultError, match="has no number: failed, 12 ranks, 20 needed"):
        profile.value(measure="alpha_req")


def test_frame_is_pandas(profile):
    frame = profile.frame()
    assert frame["value"].dropna().tolist() == [7.5, 9.25, 9.0, 4.0, 5.0]


def test_frame_is_arrow_without_pandas(profile, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert profile.frame() is profile.table


def test_save_and_load_give_back_everything(profile, tmp_path):
    profile.save(tmp_path / "prof")
    assert sorted(path.name for path in (tmp_path / "prof").iterdir()) == ["arrays.safetensors", "result.parquet", "settings.json"]
    back = Result.load(tmp_path / "prof")
    assert back.rows() == profile.rows()
    assert back.settings == profile.settings
    np.testing.assert_array_equal(back.arrays["spectrum/embed"], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    # another reader sees the same table
    assert pq.read_table(tmp_path / "prof" / "result.parquet").column("value").to_pylist()[:2] == [7.5, 9.25]
    assert json.loads((tmp_path / "prof" / "settings.json").read_text())["format_version"] == 1


def test_places_keep_their_type_beside_places_of_another_kind(tmp_path):
    mixed = Result([row(axis="step", at=8), row(axis="class", at="cat"), row(axis="scale", at=0.5), row(at=None)])
    mixed.save(tmp_path / "r")
    for result in (mixed, Result.load(tmp_path / "r"), Result.merge([mixed, Result([row(axis="step", at=9)])])):
        assert [r["at"] for r in result.rows()][:4] == [8, "cat", 0.5, None]
        assert isinstance(result.rows()[0]["at"], int)
    whole = Result([row(axis="step", at=8), row(axis="scale", at=0.5)]).rows()
    assert isinstance(whole[0]["at"], int) and whole[0]["at"] == 8


def test_loading_names_what_is_wrong(profile, tmp_path):
    with pytest.raises(ResultError, match=r"holds no result: there is no settings\.json"):
        Result.load(tmp_path)
    folder = profile.save(tmp_path / "prof")
    text = (folder / "settings.json").read_text()
    (folder / "settings.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(ResultError, match="is a result of format 9, this inscape reads up to 1"):
        Result.load(folder)
    (folder / "settings.json").write_text("{")
    with pytest.raises(StoreCorruptError, match=r"settings\.json cannot be read"):
        Result.load(folder)
    (folder / "settings.json").write_text(text)
    (folder / "arrays.safetensors").write_bytes(b"12345")
    with pytest.raises(StoreCorruptError, match=r"arrays\.safetensors"):
        Result.load(folder)
    (folder / "result.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreCorruptError, match="missing or damaged"):
        Result.load(folder)


def test_settings_must_be_json(tmp_path):
    with pytest.raises(ResultError, match="cannot be written as JSON: <object"):
        Result([row()], settings={"x": object()}).save(tmp_path)
    Result([row()], settings={"x": {2, 1}, "y": np.float64(3), "z": tmp_path}).save(tmp_path)
    assert Result.load(tmp_path).settings == {"x": [1, 2], "y": 3.0, "z": str(tmp_path)}


def test_merge_keeps_rows_settings_and_arrays(profile):
    other = Result([row(system="pythia")], settings={"seed": 1, "measures": ["two_nn"]}, arrays={"spectrum/embed": [1.0]})
    both = Result.merge([profile, other])
    assert len(both) == len(profile) + 1
    assert both.settings == {"measures": ["two_nn"], "parts": [{"seed": 0}, {"seed": 1}]}
    assert sorted(both.arrays) == ["1/spectrum/embed", "spectrum/embed"]
    assert Result.merge([profile, profile]).settings == profile.settings
    assert len(Result.merge([])) == 0


def test_tensors_and_numpy_scalars_become_plain():
    result = Result([row(value=torch.tensor(2.0), n=np.int64(3))], arrays={"w": torch.ones(2, dtype=torch.bfloat16)})
    assert result.rows()[0]["value"] == 2.0
    assert result.arrays["w"].dtype == np.float32


@pytest.mark.parametrize(
    ("rows", "settings", "kind"),
    [
        ([row()], {}, "measure"),
        ([row(system_b="b", site_b="embed")], {}, "compare"),
        ([row(axis="step", at=1)], {}, "trajectory"),
        ([row()], {"result": "curve"}, "curve"),
    ],
)
def test_the_kind_follows_from_the_rows_unless_it_is_named(rows, settings, kind):
    assert Result(rows, settings=settings).kind == kind


def test_an_unknown_kind_has_no_figure():
    with pytest.raises(ResultError, match="no figure is known for results of kind 'odd'; there are measure, features, compare"):
        Result([row()], settings={"result": "odd"}).plot()


def test_repr_is_a_readable_table(profile):
    assert repr(profile) == (
        "Result: 6 rows, 3 measures, 3 sites, 1 without a number\n"
        "site                 measure       axis   at  value                        n\n"
        "blocks.0.resid_post  two_nn        –      –   7.5 [7.0, 8.0]               100\n"
        "blocks.1.resid_post  two_nn        –      –   9.25                         100\n"
        "blocks.1.resid_post  two_nn_curve  –      –   9.00                         100\n"
        "blocks.1.resid_post  two_nn_curve  scale  10  4.00                         100\n"
        "blocks.1.resid_post  two_nn_curve  scale  20  5.00                         100\n"
        "embed                alpha_req     –      –   failed: 12 ranks, 20 needed  100"
    )
    assert repr(Result([row()] * 30)).splitlines()[-1] == "… 6 more rows: .rows(), .frame()"
    assert repr(Result([])) == "Result: 0 rows, 0 measures, 0 sites"


def test_numbers_for_people():
    assert [format_number(x) for x in (None, math.nan, 0.0, 1.0, 12.345, 1234.5, 1.2e7, 1.23e-5, -0.5, math.inf)] == [
        "–", "–", "0", "1.00", "12.3", "1,234", "1.20e+07", "1.23e-05", "-0.500", "inf",
    ]  # fmt: skip
    assert format_value({"value": 1.0, "low": 0.5, "high": 1.5}) == "1.0 [0.5, 1.5]"
    assert format_value({"value": 0.94738, "low": 0.91, "high": 0.977}) == "0.947 [0.910, 0.977]"
    assert format_value({"value": 101.26, "low": 96.64, "high": 105.2}) == "101.3 [96.6, 105.2]"
    assert format_value({"value": 0.5, "low": 0.5, "high": 0.5}) == "0.500 [0.500, 0.500]"
    assert format_value({"value": 2e-5, "low": 1e-5, "high": 3e-5}) == "2.00e-05 [1.00e-05, 3.00e-05]"
    assert format_value({"value": 1.0, "low": None, "high": 1.5}) == "1.00"


def test_a_curve_holds_places_and_a_headline():
    curve = Curve(np.float64(2.0), axis="scale", at=np.array([10, 20]), values=torch.tensor([1.0, 3.0]))
    assert float(curve) == 2.0
    assert curve.at == (10, 20) and curve.values == (1.0, 3.0)
    with pytest.raises(ResultError, match="a curve over 'scale' has 2 places but 1 values"):
        Curve(1.0, axis="scale", at=[1, 2], values=[1.0])
    with pytest.raises(AttributeError):
        curve.value = 3.0
