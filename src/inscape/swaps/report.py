"""`Swap`: what came of a comparison of two encoders, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inscape.maps import Map
from inscape.results import Result


@dataclass(frozen=True)
class Swap:
    """Whether one encoder may take another's place.

    Attributes:
        result: every number, with intervals: `recall@k`, `overlap@k` with what the old encoder finds, `score_shift` and `score_ks` of the
            best documents' scores, `inconsistency` of decisions at the old threshold, `map_r2` and `map_cosine` of the maps on documents
            they did not see; by route (`label`) and, with `axis="segment"`, by segment.
        ok: whether all requirements hold; None where none was given.
        verdict: one sentence.
        reasons: one for each requirement, and what else must be known.
        worst: the queries that lose most on a new index, worst first.
        maps: the fitted maps from the new space to the old, by method.
    """

    result: Result
    ok: bool | None
    verdict: str
    reasons: tuple[str, ...]
    worst: tuple[Mapping[str, Any], ...]
    maps: Mapping[str, Map]

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """The figure of `result.plot()`."""
        return self.result.plot(ax=ax, **options)

    def __str__(self) -> str:
        lines = [self.verdict, *(f"  {reason}" for reason in self.reasons), ""]
        rows = [row for row in self.result.rows() if row["axis"] is None]
        measures = [name for name in dict.fromkeys(row["measure"] for row in rows) if not name.startswith("score_")]
        labels = list(dict.fromkeys(row["label"] for row in rows))
        wide = max(8, *(len(label) for label in labels))
        lines.append(" " * wide + "".join(f"{name:>16}" for name in measures))
        for label in labels:
            cells = {row["measure"]: row for row in rows if row["label"] == label}
            shown = [f"{cells[name]['value']:.3f}" if name in cells and cells[name]["value"] is not None else "–" for name in measures]
            lines.append(f"{label:<{wide}}" + "".join(f"{cell:>16}" for cell in shown))
        if self.worst:
            lines += ["", "queries that lose most: " + "; ".join(f"{one['query']} ({one['overlap']:.2f})" for one in self.worst[:3])]
        return "\n".join(lines)
