"""What stores and views show in a notebook, read back as a reader would."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
import torch

from inscape.store import Store, StoreWriter
from inscape.store.manifest import SiteSpec


class Reader(HTMLParser):
    """Tables as lists of rows of cells, chips, and all text outside the style sheet."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.chips: list[tuple[str, str]] = []
        self.text, self.open = "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open.append((tag, dict(attrs).get("class", "")))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, kind = self.open[-1]
        if tag == "style":
            return
        self.text += data
        if tag in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif kind.startswith("tok"):
            self.chips.append((data, kind))


@pytest.fixture
def token_store():
    """Two stimuli of three and two tokens, the first token special, values 0, 1, 2, …"""
    stimuli = pa.table({"stimulus": ["a", "b"], "animal": ["cat", "dog"]})
    rows = pa.table(
        {
            "stimulus": pa.array([0, 0, 0, 1, 1], pa.int64()),
            "repeat": pa.array([0] * 5, pa.int32()),
            "position": pa.array([0, 1, 2, 0, 1], pa.int32()),
            "token": ["<s>", "Ġcat", "s\n", "<s>", "<b>"],
            "special": [True, False, False, True, False],
        }
    )
    values = torch.arange(40, dtype=torch.float32).reshape(5, 8)
    with StoreWriter.create_or_resume(None, {}, stimuli, {"h": SiteSpec("token", 8, "float32", "token")}, system="net") as writer:
        writer.write_shard(0, {"token": rows}, {"h": values}, {})
        return writer.finish()


def test_a_store_shows_its_sites_and_its_first_stimuli():
    store = Store.from_arrays(
        {"one": np.zeros((7, 3)), "two": np.zeros((7, 2), np.float32)},
        {"stimulus": [f"s{i}" for i in range(7)], "score": np.arange(7) / 8},
        system="net",
    )
    seen = Reader(store._repr_html_())
    sites, stimuli = seen.tables
    assert sites[0] == ["site", "rows", "units", "dtype", "one row is a", "size"]
    assert sites[1:] == [["one", "7", "3", "float64", "stimulus", "168 B"], ["two", "7", "2", "float32", "stimulus", "56 B"]]
    assert stimuli == [["stimulus", "score"], *([f"s{i}", f"{i / 8:g}"] for i in range(5))]
    assert "7 stimuli · 2 sites · 224 B · in memory" in seen.text and "first 5 of 7 stimuli" in seen.text


def test_many_sites_fold_away_and_nothing_is_dropped_silently():
    store = Store.from_arrays({f"h.{i}": np.zeros((2, 1)) for i in range(70)})
    seen = Reader(store._repr_html_())
    assert [len(table) - 1 for table in seen.tables] == [14, 46]
    assert "56 more sites" in seen.text and "… and 10 more sites" in seen.text
    assert "stimuli without columns: 0, 1" in seen.text


def test_hidden_columns_and_cut_texts_are_told():
    columns = {f"c{i}": ["x", "y"] for i in range(9)}
    store = Store.from_arrays(np.zeros((2, 1)), {"stimulus": ["a", "b"], "text": ["long " * 60, "short"], **columns})
    seen = Reader(store._repr_html_())
    assert "all 2 stimuli, columns c6, c7, c8 not shown" in seen.text
    text = seen.tables[1][1][1]
    assert len(text) == 80 and text.endswith("…")


def test_a_view_of_tokens_shows_the_first_text_and_the_first_values(token_store):
    seen = Reader(token_store["h"]._repr_html_())
    assert seen.chips == [("<s>", "tok off"), ("·cat", "tok"), ("s⏎", "tok")]
    head, *rows = seen.tables[0]
    assert head == ["stimulus", "position", "token", *(f"unit {i}" for i in range(6)), "…"]
    assert rows[1] == ["a", "1", "·cat", *(f"{v:.4f}" for v in range(8, 14)), ""]
    assert [row[:3] for row in rows] == [["a", "0", "<s>"], ["a", "1", "·cat"], ["a", "2", "s⏎"], ["b", "0", "<s>"], ["b", "1", "<b>"]]
    assert "5 rows × 8 units · one row is a token · float32" in seen.text and "all 5 rows" in seen.text


def test_a_part_of_a_view_shows_its_own_first_stimulus(token_store):
    seen = Reader(token_store["h"].select(rows=[3, 4], units=[1])._repr_html_())
    assert [chip for chip, _ in seen.chips] == ["<s>", "<b>"]
    assert seen.tables[0][0] == ["stimulus", "position", "token", "unit 0"] and "stimulus b:" in seen.text
    empty = Reader(token_store["h"].select(rows=[])._repr_html_())
    assert "0 rows × 8 units" in empty.text and not empty.chips


def test_small_numbers_keep_their_digits():
    store = Store.from_arrays(np.array([[1e-7, 1.0], [0.0, 12345.678]]))
    rows = Reader(store["X"]._repr_html_()).tables[0][1:]
    assert [row[1:] for row in rows] == [["1e-07", "1"], ["0", "1.23e+04"]]


def test_a_page_brings_no_color_and_no_background_of_its_own(token_store):
    for page in (token_store._repr_html_(), token_store["h"]._repr_html_()):
        sheet = page[page.index("<style>") : page.index("</style>")]
        assert set(re.findall(r"(?<![-\w])color:([^;}]+)", sheet)) == {"inherit", "#c55"}  # red for what is incomplete
        assert set(re.findall(r"background:([^;}]+)", sheet)) == {"none"}
        assert "<script" not in page and "http" not in page
