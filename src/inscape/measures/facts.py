"""What a measure declares about itself, in words that the docs, the plots, the report and the generated tests all read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# The transformations a measure can be invariant or sensitive to. In a pair, one of the two representations is transformed alone,
# except for `row_order`, which moves the rows of both (and their labels) together.
TRANSFORMATIONS: Mapping[str, str] = MappingProxyType(
    {
        "translation": "the same vector added to every row",
        "rotation": "an orthogonal matrix applied to every row",
        "scale": "every entry multiplied by one positive number",
        "permutation": "the units put in another order",
        "linear": "an invertible matrix applied to every row",
        "unit_scale": "every unit multiplied by a positive number of its own",
        "row_order": "the rows put in another order",
    }
)

# An invertible matrix can be any of these, so who is invariant to the first is invariant to the rest.
_IMPLIED = {"linear": {"rotation", "scale", "permutation", "unit_scale"}, "rotation": {"permutation"}, "unit_scale": {"scale"}}

# Inputs on which some measures have no value. A measure lists those it refuses; on the others it must give a finite number.
DEGENERATE: Mapping[str, str] = MappingProxyType(
    {"constant": "all rows are equal", "rank_one": "the centered rows lie on a line", "duplicates": "every row occurs twice"}
)

# What the entries of the input must be for a measure to have a meaning; what lies outside is refused with `DegenerateInputError`.
DOMAINS: Mapping[str, str] = MappingProxyType(
    {
        "real": "any finite numbers",
        "nonnegative": "no entry is negative, as with entropies",
        "share": "every entry is between 0 and 1",
        "heavy_tailed": "a spectrum whose tail follows a power law",
    }
)

# Upper ends of a range that depend on the shape of the input.
_BOUNDS: Mapping[str, Callable[[int, int], float]] = MappingProxyType(
    {
        "d": lambda n, d: d,
        "min(n, d)": min,
        "min(n - 1, d)": lambda n, d: min(n - 1, d),
    }
)

HIGHER_IN_A_PAIR = ("more similar", "more different")
STATUSES = ("stable", "provisional")
SECTIONS = ("Args", "Returns", "Raises", "Warns", "Source", "Cost", "Bias", "Example")


@dataclass(frozen=True)
class Facts:
    """The declared facts of one measure, checked for contradictions."""

    invariant: frozenset[str]
    sensitive: frozenset[str]
    low: float
    high: float | str
    source: str
    higher: str
    symmetric: bool
    undefined: frozenset[str]
    minimum: int
    null: str
    status: str
    paired: bool = True
    reflexive: bool = True
    domain: str = "real"
    one_space: bool = False
    beside: str = ""
    repeatable: bool = True

    def __post_init__(self) -> None:
        for words, known in ((self.invariant | self.sensitive, TRANSFORMATIONS), (self.undefined, DEGENERATE)):
            if unknown := sorted(words - set(known)):
                raise ValueError(f"unknown facts {unknown}; a measure chooses from {sorted(known)}")
        invariant = self.invariant.union(*(_IMPLIED.get(word, set()) for word in self.invariant))
        if both := sorted(invariant & self.sensitive):
            raise ValueError(f"declared both invariant and sensitive to {both} (claims that follow from others included)")
        object.__setattr__(self, "invariant", invariant)
        if isinstance(self.high, str) and self.high not in _BOUNDS:
            raise ValueError(f"unknown upper bound {self.high!r}; write a number or one of {sorted(_BOUNDS)}")
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {STATUSES}")
        if self.domain not in DOMAINS:
            raise ValueError(f"domain {self.domain!r} is none of {sorted(DOMAINS)}")
        if not self.source or not self.higher:
            raise ValueError("a measure names its source and says what a higher value means")

    def limits(self, n: int, d: int) -> tuple[float, float]:
        """The range for an input of n rows and d units."""
        return self.low, _BOUNDS[self.high](n, d) if isinstance(self.high, str) else self.high

    @property
    def range_text(self) -> str:
        """The range for people: "1 to min(n - 1, d)"."""
        return f"{_number(self.low)} to {self.high if isinstance(self.high, str) else _number(self.high)}"

    @property
    def numeric_range(self) -> tuple[float, float]:
        """The range as two numbers; infinite where it depends on the shape of the input."""
        return self.low, math.inf if isinstance(self.high, str) else self.high


def ordered(words: Iterable[str]) -> list[str]:
    """Transformations in the order of the vocabulary."""
    chosen = set(words)
    return [word for word in TRANSFORMATIONS if word in chosen]


def sections(doc: str) -> dict[str, str]:
    """The sections of a Google-style docstring by name; the text before the first one is under "" ."""
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in inspect.cleandoc(doc).splitlines():
        if line.rstrip().removesuffix(":") in SECTIONS and line.rstrip().endswith(":") and not line.startswith(" "):
            current = line.rstrip().removesuffix(":")
            found[current] = []
        else:
            found[current].append(line)
    return {name: inspect.cleandoc("\n".join(lines)).strip() for name, lines in found.items()}


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if math.isclose(value, math.pi / 2):
        return "π/2"
    return f"{value:g}"
