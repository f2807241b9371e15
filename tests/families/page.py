"""Writes docs/models.md from what the tests of the families see: `python -m tests.families.page > docs/models.md`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from inscape.models.names import CANONICAL_BLOCK, in_order
from inscape.models.sites import SiteInfo
from tests.families.catalog import families, model_of
from tests.families.observed import canonical, captured, drift, readable

HEAD = """# Models and sites

<!-- Made by `make models-page` from what tests/families sees; edit the tests, not this page. -->

Canonical [sites](sites.md) are found by following one forward pass, so most models that are not listed here work as well: `model.sites()`
tells, and whatever has no canonical name can be read by its module path. What is listed here is tested, each family as a tiny model with
random weights, biases and norms included. For each of them

- every site that is marked ✓ can be captured, and the rows of a stimulus are **bit for bit** what a hand-written hook sees there;
- a stimulus in a batch gives the rows that it gives alone, with the **drift** below (largest difference as a part of the rms, rounded up
  to a power of ten), over texts of 1 to 20 tokens and both padding sides;
- a site that is marked – is refused before anything runs, with the reason given below the tables;
- no hook and no changed flag stays on the model.

A cell gives the shape of the rows of one stimulus of the example, positions × units, in a block from the middle; one number is one row.
"""

PARTS = {
    "The stream": ("embed", "resid_pre", "resid_mid", "resid_post", "final_norm", "logits"),
    "Attention": ("q", "k", "v", "z", "attn_pattern", "attn_out"),
    "Between the layers": ("mlp_act", "mlp_out"),
}
_BLOCK = re.compile(r"^(?P<tower>[a-z_]+\.)?blocks\.(?P<block>\d+)\.(?P<site>\w+)$")
_END = re.compile(r"^(?P<tower>[a-z_]+\.)?(?P<site>\w+)$")


@dataclass
class Stack:
    """The sites of one stack of blocks of a family, each by its last part; of the blocks only the middle one."""

    title: str
    sites: dict[str, SiteInfo] = field(default_factory=dict)


def stacks(name: str) -> list[Stack]:
    """A family's stacks, the one without a prefix first."""
    rows = canonical(name)
    numbers: dict[str, set[int]] = {}
    for site in rows:
        if match := _BLOCK.match(site):
            numbers.setdefault(match["tower"] or "", set()).add(int(match["block"]))
    found: dict[str, Stack] = {}
    for site, row in rows.items():
        match = _BLOCK.match(site) or _END.match(site)
        assert match, f"{site} is no name that this page knows how to show"
        tower = match["tower"] or ""
        if "block" in match.groupdict() and int(match["block"]) != _middle(numbers[tower]):
            continue
        title = f"{name} · {tower.removesuffix('.')}" if tower else name
        found.setdefault(tower, Stack(title)).sites[match["site"]] = row
    return [found[tower] for tower in sorted(found, key=lambda tower: (tower != "", tower))]


def _middle(numbers: set[int]) -> int:
    return sorted(numbers)[len(numbers) // 2]


def shape(row: SiteInfo) -> str:
    """Positions × units of one stimulus, without the batch."""
    return "" if row.shape is None else "×".join(map(str, row.shape[1:]))


class Reasons:
    """Footnotes, one for each reason however often it is given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """The sign that leads to the reason."""
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
    """Stack × site, in three tables; sites that the names above do not cover come last."""
    known = {site for sites in PARTS.values() for site in sites}
    others = list(dict.fromkeys(site for stack in everything for site in stack.sites if site not in known))
    others.sort(key=lambda site: CANONICAL_BLOCK.index(site) if site in CANONICAL_BLOCK else 99)
    lines: list[str] = []
    for title, names in {**PARTS, "Between the layers": (*PARTS["Between the layers"], *others)}.items():
        rows = []
        for stack in everything:
            cells = [_cell(stack.sites.get(site), reasons) for site in names]
            if any(cells):
                rows.append([stack.title, *cells])
        lines += ["", f"## {title}", "", *table(["", *(f"`{name}`" for name in names)], rows)]
    return lines


def _cell(row: SiteInfo | None, reasons: Reasons) -> str:
    if row is None:
        return ""
    return f"✓ {shape(row)}".rstrip() if row.available else reasons.mark(row.note)


def batching() -> list[str]:
    """What each family was shown, and what a batch changes."""
    rows: list[list[str]] = []
    for name, family in families().items():
        store = captured(name, family.sides[0] if family.sides else None)
        padding = str(store.manifest.notes["fidelity"]["padding"])
        sides = ", ".join(family.sides) if family.sides and not padding.startswith("none") else padding
        worst = max(max(drift(name, side).values()) for side in family.sides or (None,))
        kinds = ", ".join(dict.fromkeys(store[site].kind for site in readable(name)))
        rows.append([name, f"`{type(model_of(name).module).__name__}`", model_of(name).modality, kinds, sides, ceiling(worst), family.note])
    return ["", "## Batches", "", *table(["", "class", "reads", "rows are", "padding", "drift", ""], rows)]


def ceiling(value: float) -> str:
    """The power of ten above a value: what does not change from one machine to the next."""
    return "0" if value == 0 else f"≤ 1e{math.ceil(math.log10(value))}"


def details(name: str) -> list[str]:
    """All canonical sites of a family: where each is taken, and what must be known to read it."""
    rows: list[list[str]] = []
    for stack in stacks(name):
        for row in sorted(stack.sites.values(), key=lambda row: in_order(row.name) if stack.title == name else (0, 0, 0)):
            where = f"`{row.path}`" if row.available else "–"
            rows.append([f"`{row.name}`", where, shape(row), f"`{row.alias}`" if row.alias else "", row.note])
    return ["", f"### {name}", "", *table(["site", "taken at", "shape", "TransformerLens", "note"], rows)]


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
    return re.sub(r"\| (0|≤ 1e-?\d+) (?=\|)", "| … ", text)


if __name__ == "__main__":
    print(page(), end="")
