"""`inscape trajectory`: a folder of checkpoints, their phases, and the result in a folder."""

from __future__ import annotations

import json

import pytest
import torch

from inscape.errors import ResultError


@pytest.fixture
def run(tmp_path, monkeypatch):
    from transformers import BertConfig, BertModel

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for step in (0, 10, 200):
        model = BertModel(BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16))
        model.save_pretrained(tmp_path / "run" / f"checkpoint-{step}")
    ids = torch.randint(0, 50, (40, 6), generator=torch.Generator().manual_seed(1)).tolist()
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"input_ids": ids}), tmp_path / "ids.parquet")
    return tmp_path


def test_checkpoints_are_measured_and_saved(inscape, run):
    told = inscape("trajectory", "run", "effective_rank", "linear_cka", "--texts", "ids.parquet", "--out", "found")
    assert told.code == 0, told.err
    assert told.last == "inscape report found --to found.html"
    from inscape.results import Result

    found = Result.load(run / "found")
    assert found.settings["steps"] == [0, 10, 200] and len(found) == 12
    assert found.value(measure="linear_cka", site="blocks.0.resid_post", at=200) == pytest.approx(1)
    assert all(set(phase) == {"name", "begin", "end", "factor"} for phase in found.settings["phases"])
    as_json = inscape("trajectory", "run", "linear_cka", "--texts", "ids.parquet", "--against", "previous", "--json")
    assert [row["at"] for row in json.loads(as_json.out)["rows"]] == [10, 10, 200, 200]
    assert inscape("trajectory", "run", "linear_cka", "--texts", "ids.parquet", "--against", "first").code == 2


def test_values_are_kept_where_there_are_no_phases(inscape, run, monkeypatch):
    def refused(result: object) -> None:
        raise ResultError("no site has effective_rank at every step")

    monkeypatch.setattr("inscape.training.phases", refused)
    told = inscape("trajectory", "run", "effective_rank", "--texts", "ids.parquet", "--out", "found")
    assert told.code == 0 and "no phases: no site has effective_rank at every step" in told.err
    assert (run / "found").exists()
