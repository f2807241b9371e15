"""The tree of sites, against drawings made by hand."""

from __future__ import annotations

import re

import inscape as ix
from inscape.models.site_tree import canonical_tree, draw, module_tree, plain
from inscape.models.sites import SiteInfo, SiteTable


def row(name, path="", shape=(2, 6, 16), note="", **kw):
    return SiteInfo(name, path, shape, "tokens", note=note, **kw)


def blocks(prefix, path, count, **extra):
    found = []
    for i in range(count):
        found += [
            row(f"{prefix}blocks.{i}.resid_pre", f"{path}.{i}:in"),
            row(f"{prefix}blocks.{i}.z", f"{path}.{i}.attn.o:in", note="heads, side by side: 4 × 4"),
            row(f"{prefix}blocks.{i}.resid_post", f"{path}.{i}"),
        ]
    return found


def test_blocks_that_are_alike_share_a_branch():
    rows = [row("embed", "h.0:in"), *blocks("", "h", 12), row("final_norm", "norm"), row("logits", "head", (2, 6, 50))]
    assert plain(draw(canonical_tree(rows))).splitlines() == [
        "embed           2×6×16  h.0:in",
        "blocks.0 … 11           h.0 … 11",
        "├── resid_pre   2×6×16  :in",
        "├── z           2×6×16  .attn.o:in  heads, side by side: 4 × 4",
        "└── resid_post  2×6×16  :out",
        "final_norm      2×6×16  norm",
        "logits          2×6×50  head",
    ]
    every = plain(draw(canonical_tree(rows, every=True))).splitlines()
    assert sum(line.startswith("blocks.") for line in every) == 12


def test_a_block_that_differs_has_a_branch_of_its_own():
    rows = blocks("", "h", 5)
    rows[7] = row("blocks.2.z", "h.2.attn.o:in", (2, 6, 8), "heads, side by side: 2 × 4")
    drawn = plain(draw(canonical_tree(rows)))
    assert [line.split("  ")[0] for line in drawn.splitlines() if line.startswith("blocks")] == ["blocks.0 … 1", "blocks.2", "blocks.3 … 4"]


def test_what_is_missing_stands_in_its_place_with_the_reason():
    rows = [*blocks("", "h", 2), *(row(f"blocks.{i}.mlp_act", shape=None, note="no single projection", available=False) for i in range(2))]
    rows.append(row("logits", shape=None, note="the model was loaded without a head", available=False))
    assert plain(draw(canonical_tree(rows))).splitlines()[2:] == [
        "├── z           2×6×16  .attn.o:in  heads, side by side: 4 × 4",
        "├── mlp_act     not available: no single projection",
        "└── resid_post  2×6×16  :out",
        "logits          not available: the model was loaded without a head",
    ]


def test_towers_come_one_after_the_other_each_with_its_ends():
    rows = [row("encoder.embed", "enc.0:in"), *blocks("encoder.", "enc", 2), *blocks("decoder.", "dec", 3)]
    rows += [row("decoder.final_norm", "dec_norm"), row("logits", "head")]
    assert [re.split(r"(?<=\w)  ", line)[0] for line in plain(draw(canonical_tree(rows))).splitlines()] == [
        "encoder",
        "├── encoder.embed",
        "└── encoder.blocks.0 … 1",
        "    ├── resid_pre",
        "    ├── z",
        "    └── resid_post",
        "decoder",
        "├── decoder.blocks.0 … 2",
        "│   ├── resid_pre",
        "│   ├── z",
        "│   └── resid_post",
        "└── decoder.final_norm",
        "logits",
    ]


def test_stages_stand_between_what_comes_before_and_after_them():
    rows = [row("embed", "s.0.0:in"), row("logits", "head"), row("final_norm", "norm")]
    rows += [row(f"stages.0.blocks.{j}.resid_post", f"s.0.{j}") for j in range(2)]
    rows += [row(f"stages.1.blocks.{j}.resid_post", f"s.1.{j}", (2, 3, 8 + j)) for j in range(2)]
    rows += [row(f"stages.*.blocks.*.{name}", shape=None, note="no attention", available=False) for name in ("z", "q")]
    assert plain(draw(canonical_tree(rows))).splitlines() == [
        "embed                  2×6×16  s.0.0:in",
        "stages.0.blocks.0 … 1          s.0.0 … 1",
        "└── resid_post         2×6×16  :out",
        "stages.1",
        "├── stages.1.blocks.0          s.1.0",
        "│   └── resid_post     2×3×8   :out",
        "└── stages.1.blocks.1          s.1.1",
        "    └── resid_post     2×3×9   :out",
        "stages.*.blocks.*",
        "└── q …                not available: q, z: no attention",
        "final_norm             2×6×16  norm",
        "logits                 2×6×16  head",
    ]


def test_modules_lie_inside_one_another_and_chains_are_one_line():
    rows = [row(path, path, canonical=False) for path in ("body.h.0", "body.h.0.a", "body.h.1", "body.h.1.a", "head.0", "head.1")]
    assert plain(draw(module_tree(rows))).splitlines() == [
        "body.h.0 … 1  2×6×16",
        "└── a         2×6×16",
        "head",
        "├── 0         2×6×16",  # single modules may be of different kinds, so they stay apart
        "└── 1         2×6×16",
    ]
    assert "body.h" in plain(draw(module_tree(rows, every=True))).splitlines()


def test_long_notes_go_on_below_themselves_and_no_line_is_wider_than_asked():
    rows = blocks("", "a.rather.long.path.of.modules", 2)
    for i in range(2):
        rows[3 * i + 1] = row(f"blocks.{i}.z", f"a.rather.long.path.of.modules.{i}.attention.output.dense:in", note="word " * 40)
    for width in (60, 80, 120):
        lines = plain(draw(canonical_tree(rows), width=width)).splitlines()
        assert max(map(len, lines)) <= width
        assert sum(line.count("word") for line in lines) == 40
    assert any(line.startswith("│   ") and line.split()[1] == "word" for line in lines)


def test_a_table_prints_as_the_tree_and_its_modules(gpt2):
    table = ix.load(gpt2).sites()
    text = repr(table)
    assert text.splitlines()[0] == table.title and text.splitlines()[-1] == table.note
    assert "blocks.0 … 2" in text and "├── h.0 … 2" in text and max(map(len, text.splitlines())) <= 120
    assert "h.0 … 2" not in table.tree(modules=False).partition("resid_post")[2]
    assert repr(SiteTable([])) == ""
