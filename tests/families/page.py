"""Writes docs/models.md from what the tests of the families see: `python -m tests.families.page > docs/models.md`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from inscape.models.names import CANONICAL_BLOCK
from inscape.models.sites import SiteInfo
from tests.families.catalog import families, model_of
from tests.families.observed import captured, drift, listed, pattern_gap, readable

HEAD = """# Models and sites

<!-- Made by `make models-page` from what tests/families sees; edit the tests, not this page. -->

Canonical [sites](sites.md) are found by following one forward pass, so most models that are not listed here work as well: `model.sites()`
tells, and whatever has no canonical name can be read by its module path. What is listed here is tested, each family as a tiny model with
random weights, biases and norms included. For each of them

- every site that is marked ✓ can be captured, and the rows of a stimulus are **bit for bit** what a hand-written hook sees there;
- `attn_pattern` differs from what the model itself returns with eager attention by no more than the table of batches says, wherever it
  returns patterns; the model that is read keeps its own attention;
- a stimulus in a batch gives the rows that it gives alone, with the **drift** below (largest difference as a part of the rms, rounded up
  to a power of ten), for texts over lengths of 1 to 20 tokens and all padding sides that are named;
- a site that is marked – is refused before anything runs, with the reason given at the end of the page; where some blocks have it and
  others do not, both signs stand;
- no hook and no changed flag stays on the model.

A cell gives the shape of what one stimulus of the example has in a block from the middle: positions × units (for patterns heads × positions
× positions). One number is a single row.
"""

PARTS = {
    "The stream": ("embed", "resid_pre", "resid_mid", "resid_post", "final_norm", "logits"),
    "Attention": ("q", "k", "v", "attn_pattern", "z", "attn_out"),
    "MLPs, experts, state spaces": ("mlp_act", "mlp_out", "router", "experts_out", "mixer_out"),
    "Between towers": ("cross_attn_out", "resid_mid_cross", "embedding"),
}
_NO_BREAK = "\u00a0"
_STAGE = re.compile(r"(?:^|(?<=\.))stages\.(\d+|\*)\.")
_BLOCK = re.compile(r"^(?P<tower>(?:\w+\.)?)blocks\.(?P<block>\d+|\*)\.(?P<site>\w+)$")
_END = re.compile(r"^(?P<tower>(?:\w+\.)?)(?P<site>\w+)$")


@dataclass
class Stack:
    """The sites of one stack of blocks of a family, each by its last part: where it is, and why other blocks lack it.

    Of the blocks that have a site, the one from the middle stands for all.
    """

    title: str
    sites: dict[str, SiteInfo] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)


def stacks(name: str) -> list[Stack]:
    """A family's stacks, the one without a prefix first."""
    found: dict[str, Stack] = {}
    several: dict[tuple[str, str], list[SiteInfo]] = {}
    for site, row in listed(name).items():
        if not row.canonical:
            continue
        plain = _STAGE.sub("", site)
        match = _BLOCK.match(plain) or _END.match(plain)
        assert match, f"{site} is no name that this page knows how to show"
        tower = match["tower"]
        found.setdefault(tower, Stack(f"{name} · {tower.removesuffix('.')}" if tower else name))
        several.setdefault((tower, match["site"]), []).append(row)
    for (tower, site), rows in several.items():
        having = [row for row in rows if row.available]
        lacking = [row for row in rows if not row.available]
        found[tower].sites[site] = (having or lacking)[len(having or lacking) // 2]
        if having and lacking:
            found[tower].lacks[site] = lacking[0].note
    return [found[tower] for tower in sorted(found, key=lambda tower: (tower != "", tower))]


def shape(row: SiteInfo) -> str:
    """Positions × units of one stimulus, without the batch."""
    return "" if row.shape is None else "×".join(map(str, row.shape[1:]))


class Reasons:
    """Footnotes, one for each reason however often it is given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """The sign that leads to the reason."""
        text = re.sub(r"^'[^']+' ", "the block ", text)  # one reason for every block that has it
        if text not in self.texts:
            self.texts.append(text)
        return f"–[^{self.texts.index(text) + 1}]"

    def lines(self) -> list[str]:
        """The notes themselves."""
        return [f"[^{number}]: {text[0].upper()}{text[1:]}." for number, text in enumerate(self.texts, 1)]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    line = ["---"] * len(head)
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [head, line, *rows]]


def overview(everything: list[Stack], reasons: Reasons) -> list[str]:
    """Stack × site, in three tables; a table leaves out the stacks that have nothing in it."""
    known = {site for sites in PARTS.values() for site in sites}
    others = {site for stack in everything for site in stack.sites} - known
    assert not others, f"no table has a column for {others}; add it to PARTS"
    lines: list[str] = []
    for title, names in PARTS.items():
        rows = [[stack.title, *(_cell(stack, site, reasons) for site in names)] for stack in everything]
        lines += ["", f"## {title}", "", *table(["", *(f"`{name}`" for name in names)], [row for row in rows if any(row[1:])])]
    return lines


def _cell(stack: Stack, site: str, reasons: Reasons) -> str:
    row = stack.sites.get(site)
    if row is None:
        return ""
    if not row.available:
        return reasons.mark(row.note)
    return _NO_BREAK.join(filter(None, ["✓", shape(row), reasons.mark(stack.lacks[site]) if site in stack.lacks else ""]))


def batching() -> list[str]:
    """What each family was shown, and what a batch changes."""
    rows: list[list[str]] = []
    for name, family in families().items():
        store = captured(name, family.sides[0] if family.sides else None)
        padding = str(store.manifest.notes["fidelity"]["padding"]).partition(":")[0]
        sides = ", ".join(family.sides) if family.sides and padding != "none" else padding
        worst = max(max(drift(name, side).values()) for side in family.sides or (None,))
        kinds = ", ".join(dict.fromkeys(store[site].kind for site in readable(name)))
        gap = pattern_gap(name)
        figures = [ceiling(worst), "" if gap is None else ceiling(gap)]
        rows.append([name, f"`{type(model_of(name).module).__name__}`", model_of(name).modality, kinds, sides, *figures])
    head = ["", "class", "reads", "rows are", "padding", "drift", "pattern"]
    said = 'With padding "none" only stimuli of equal length or size share a batch.'
    return ["", "## Batches", "", said, "", *table(head, rows)]


def ceiling(value: float) -> str:
    """The power of ten above a value: what does not change from one machine to the next."""
    if value == 0:
        return "0"
    return f"≤{_NO_BREAK}10{str(math.ceil(math.log10(value))).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def details(name: str) -> list[str]:
    """All canonical sites of a family: where each is taken, and what must be known to read it."""
    rows: list[list[str]] = []
    for stack in stacks(name):
        for site in sorted(stack.sites, key=_place):
            row = stack.sites[site]
            where = f"`{row.path}`" if row.available else "–"
            rows.append([f"`{row.name}`", where, shape(row), row.note])
    for path in families()[name].paths:
        row = listed(name).get(path)
        rows.append([f"`{path}`", "by its path", "" if row is None else shape(row), "" if row is None else row.note])
    note = [families()[name].note, ""] if families()[name].note else []
    return ["", f"### {name}", "", *note, *table(["site", "taken at", "shape", "note"], rows)]


def _place(site: str) -> int:
    """From the embedding through the block to the logits."""
    order = ("embed", *CANONICAL_BLOCK, "final_norm", "embedding", "logits")
    return order.index(site)


def page() -> str:
    """The whole page."""
    reasons = Reasons()
    everything = [stack for name in families() for stack in stacks(name)]
    lines = [HEAD.strip(), *overview(everything, reasons), *batching(), "", "## Each family, site by site"]
    for name in families():
        lines += details(name)
    return "\n".join([*lines, "", *reasons.lines(), ""])


def without_measurements(text: str) -> str:
    """The page without what may differ from machine to machine."""
    return re.sub(r"\| (0|≤\s10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+) (?=\|)", "| … ", text)


if __name__ == "__main__":
    print(page(), end="")
