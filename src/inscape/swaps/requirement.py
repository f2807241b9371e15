"""What a swap must keep, as text: `recall@10>=0.95`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inscape.errors import ResultError
from inscape.results import Result

_OPERATORS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_FORM = re.compile(
    r"\s*(?:(?P<route>[\w-]+)\s*:)?\s*(?P<measure>[a-z_]+(?:@\d+)?)\s*(?P<op>>=|<=|>|<)\s*"
    r"(?P<bound>-?\d*\.?\d+(?:[eE]-?\d+)?)\s*(?P<old>\*\s*old)?(?P<each>\s+in\s+segments)?\s*"
)


@dataclass(frozen=True)
class Requirement:
    """One bound that a number must keep.

    Attributes:
        text: as it was written.
        route: which way of swapping it is about: "new" (all documents embedded anew), "direct", or the name of a map.
        measure: the number, such as "recall@10".
        sign: ">=", "<=", ">" or "<".
        bound: the bound.
        of_old: whether the bound is a share of what the old encoder reaches.
        each: whether every segment must keep it, too.
    """

    text: str
    route: str
    measure: str
    sign: str
    bound: float
    of_old: bool
    each: bool

    @staticmethod
    def of(text: str) -> Requirement:
        """Reads `[route:]measure@k OP number[*old][ in segments]`.

        Raises:
            ResultError: the text has another form.

        Example:
            >>> Requirement.of("ridge:recall@10 >= 0.98*old").route
            'ridge'
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ResultError(
                f"cannot read the requirement {text!r}; write a measure and a bound, such as 'recall@10>=0.95', 'recall@10>=0.98*old', "
                "'ridge:overlap@10>=0.8', or 'recall@10>=0.9 in segments'"
            )
        found = match.groupdict()
        return Requirement(
            text.strip(),
            found["route"] or "new",
            found["measure"],
            found["op"],
            float(found["bound"]),
            bool(found["old"]),
            bool(found["each"]),
        )

    def check(self, result: Result, route: str | None = None) -> tuple[bool, str]:
        """Whether it holds in a result of `ix.swap`, and why.

        Raises:
            ResultError: there is no such route or measure.
        """
        where = route or self.route
        rows = result.where(label=where, measure=self.measure).rows()
        if not rows:
            known = [name for name in result.unique("label") if name != "old"]
            raise ResultError(
                f"the requirement {self.text!r} is about {self.measure!r} of the route {where!r}; routes are {known}, "
                f"measures {result.unique('measure')}"
            )
        holds, parts = True, list[str]()
        for row in rows:
            if row["axis"] == "segment" and not self.each:
                continue
            place = f" in {row['at']}" if row["axis"] == "segment" else ""
            if row["value"] is None:
                return False, f"{where}: {self.measure}{place} has no number: {row['reason']}"
            limit = self.bound * self._old(result, row) if self.of_old else self.bound
            kept = _OPERATORS[self.sign](row["value"], limit)
            holds = holds and kept
            if not kept or row["axis"] is None:
                parts.append(f"{self.measure}{place} = {row['value']:.3f}{_reach(row)}, {'' if kept else 'not '}{self.sign} {limit:.3f}")
        return holds, f"{where}: " + "; ".join(parts)

    def _old(self, result: Result, row: dict[str, Any]) -> float:
        return result.where(axis=row["axis"], at=row["at"]).value(label="old", measure=self.measure)


def _reach(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
