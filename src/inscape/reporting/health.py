"""Whether a model's layers look like those of models that are known to work: vital signs against a stated reference set."""

from __future__ import annotations

import json
import math
import os
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.capturing import Stimuli, capture
from inscape.errors import InscapeError, InscapeWarning, ModelError, ResultError, SiteNotFoundError, TooFewStimuliError
from inscape.measures.registry import get
from inscape.models import load
from inscape.results import Result, format_number
from inscape.store import Store
from inscape.summaries import Extremes, sample_rows

SITES = "blocks.*.resid_post"
TEXTS, ROWS = 256, 4096
_FACTOR, _STEP = 2.0, 0.1
_ENTROPY = "attn_pattern|entropy"


@dataclass(frozen=True)
class Sign:
    """One vital sign.

    Attributes:
        name: as it stands in results.
        what: the number in words.
        below: what a value below the reference means; "" where it means nothing bad.
        above: the same for a value above it.
        ratio: whether the room beside the reference is a factor (2) or a difference (0.1).
    """

    name: str
    what: str
    below: str
    above: str
    ratio: bool = True


SIGNS = (
    Sign("rank_share", "effective rank over units", "few directions are in use: collapse", ""),
    Sign("isoscore", "share of the space that is filled evenly", "the cloud is flat: collapse", "the cloud is as round as noise"),
    Sign("two_nn", "intrinsic dimension", "rows lie on a curve or a few points", "rows fill the space as noise does"),
    Sign("mean_cosine", "mean cosine between rows", "", "all rows point one way: anisotropy", ratio=False),
    Sign("token_spread", "how far the tokens of a text lie from their mean", "tokens become one vector: collapse", "", ratio=False),
    Sign("massive", "largest activation over the median", "", "massive activations"),
    Sign("dead", "share of units that never change", "", "dead units", ratio=False),
    Sign("attention", "entropy of attention over ln of the text's tokens", "heads look at one token each: entropy collapse", ""),
    Sign("growth", "size of the rows over that of the layer before", "activations vanish with depth", "activations explode with depth"),
)


@dataclass(frozen=True)
class Reading:
    """One vital sign of one layer.

    Attributes:
        site: the layer.
        sign: which of `SIGNS`.
        value: its number; None where there is none.
        low: the smallest value that counts as in range.
        high: the largest.
        verdict: "in range", "below", "above", or why there is no number.
        rows: how many rows of the layer were read; 0 where that is not known.
    """

    site: str
    sign: Sign
    value: float | None
    low: float
    high: float
    verdict: str
    rows: int = 0

    @property
    def inside(self) -> bool:
        """Whether the number is in range."""
        return self.verdict == "in range"

    @property
    def limits(self) -> str:
        """The range in words, on the sides on which leaving it means something: "at least 0.2"."""
        low, high = format_number(self.low, 2), format_number(self.high, 2)
        return f"{low}–{high}" if self.sign.below and self.sign.above else f"≥ {low}" if self.sign.below else f"≤ {high}"

    @property
    def meaning(self) -> str:
        """What it means where it is out of range."""
        return {"below": self.sign.below, "above": self.sign.above}.get(self.verdict, self.verdict)


@dataclass(frozen=True)
class Health:
    """The vital signs of a model's layers.

    Attributes:
        system: the model.
        readings: every sign of every layer, in the order of the forward pass.
        notes: what a reader must know about the rows.
        models: the models of the reference set.
    """

    system: str
    readings: tuple[Reading, ...]
    notes: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether every sign of every layer is in range."""
        return not self.findings

    @property
    def findings(self) -> tuple[Reading, ...]:
        """The readings that are out of range."""
        return tuple(reading for reading in self.readings if not reading.inside)

    @property
    def verdict(self) -> str:
        """One sentence."""
        sites = list(dict.fromkeys(reading.site for reading in self.readings))
        if self.healthy:
            return f"{self.system}: all {len(self.readings)} signs of {len(sites)} layers are in the range of the reference models."
        ill = list(dict.fromkeys(reading.site for reading in self.findings))
        names = list(dict.fromkeys(reading.sign.name for reading in self.findings))
        return f"{self.system}: {len(ill)} of {len(sites)} layers are out of range, in {', '.join(names)}."

    @property
    def result(self) -> Result:
        """The readings as a result: a row per layer and sign, `kind` and `reason` say the verdict; it can be drawn and reported."""
        rows = [
            {"system": self.system, "site": one.site, "measure": one.sign.name, "value": one.value, "kind": "layer"}
            | {"n": one.rows or None}
            | {"status": "ok" if one.value is not None else "degenerate"}
            | {"reason": None if one.inside else f"out of range ({one.limits}): {one.meaning}"}
            for one in self.readings
        ]
        settings = {"verb": "health", "reference": list(self.models), "verdict": self.verdict, "warnings": list(self.notes)}
        return Result(rows, settings={**settings, "measures": [sign.name for sign in SIGNS]})

    def __str__(self) -> str:
        sites = list(dict.fromkeys(reading.site for reading in self.readings))
        by_place = {(reading.site, reading.sign.name): reading for reading in self.readings}
        limits = {reading.sign.name: reading.limits for reading in self.readings}
        signs = [sign for sign in SIGNS if sign.name in limits]
        table = [["", *(sign.name for sign in signs)]]
        table += [[site, *(_cell(by_place.get((site, sign.name))) for sign in signs)] for site in sites]
        table.append(["in range", *(f"{limits[sign.name]}  " for sign in signs)])
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in table
        ]
        notes = [textwrap.fill(f"Note: {note}.", 110, subsequent_indent="  ") for note in self.notes]
        like = textwrap.fill(f"In range means like the reference, no more: {'; '.join(self.models)}.", 110, subsequent_indent="  ")
        return "\n".join([*lines, "", self.verdict, *self._told(), *notes, like])

    def _told(self) -> list[str]:
        """A line for each sign and side that is out of range, with the layer that is furthest out."""
        grouped: dict[tuple[str, str], list[Reading]] = {}
        for one in self.findings:
            grouped.setdefault((one.sign.name, one.verdict), []).append(one)
        lines: list[str] = []
        for (name, verdict), found in grouped.items():
            if found[0].value is None:
                lines.append(f"  {name} has no number at {', '.join(one.site for one in found)}: {verdict}")
                continue
            worst = (min if verdict == "below" else max)(found, key=lambda one: one.value or 0.0)
            where = worst.site if len(found) == 1 else f"{len(found)} layers, furthest at {worst.site}"
            lines.append(f"  {name} {format_number(worst.value)} ({worst.limits}) at {where}: {worst.meaning}")
        return lines


def health(
    model: Any,
    texts: Any,
    *,
    sites: str | Sequence[str] = SITES,
    reference: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Health:
    """Reads the vital signs of every layer on texts, and says which are unlike those of the reference models.

    Rows are tokens; the first position of every text, on which many models pile up large activations, counts for `massive` and
    `token_spread` alone. At most 256 texts (evenly spaced) and 4,096 rows are used, and the notes say when that cut something.

    Args:
        model: a Hugging Face id, a folder, a loaded `Model` or a module.
        texts: what `ix.capture` takes as stimuli: a list, a file, token ids.
        sites: the layers.
        reference: another reference set: what `python -m studies.health_reference` writes, or its path.
        seed: of the choice of rows.

    Returns:
        A `Health`: print it, ask `healthy` and `findings`, or draw and report its `result`.

    Raises:
        TooFewStimuliError: fewer rows than twice the units of a layer: every rank would look small.
        SiteNotFoundError: the model has no such layers.
        ResultError: the reference cannot be read.

    Example:
        >>> health("gpt2", texts).verdict    # doctest: +SKIP
    """
    known = read_reference(reference)
    loaded = load(model)
    given = Stimuli.of(texts)
    notes: list[str] = []
    if len(given) > TEXTS:
        notes.append(f"{TEXTS} of {len(given):,} texts, evenly spaced, were read")
        given = Stimuli([given[i] for i in np.linspace(0, len(given) - 1, TEXTS).astype(int).tolist()], kind=given.kind)
    store = read_layers(loaded, given, sites)
    notes += [store.manifest.cut] if store.manifest.cut else []
    found = vital_signs(store, seed=seed)
    n, d = min(one["rows"] for one in found.values()), max(store[site].d for site in found)
    if n < 10 * d:
        notes.append(f"{n:,} rows for {d} units: ranks and isotropy come out low; 10 rows for each unit are enough")
    readings = [_read(site, sign, values, known) for site, values in found.items() for sign in SIGNS if sign.name in values]
    return Health(store.system, tuple(readings), tuple(notes), tuple(known["models"]))


def read_layers(model: Any, texts: Any, sites: str | Sequence[str] = SITES) -> Store:
    """The token rows of the layers, and the attention entropy of the same blocks where it can be read."""
    names = [sites] if isinstance(sites, str) else list(sites)
    attention = list(dict.fromkeys(beside for name in names if (beside := _attention_beside(name))))
    try:
        return capture(model, texts, sites=[*names, *attention], tokens="all", progress=False)
    except (SiteNotFoundError, ModelError):  # not every network attends, and not every kind of attention can be watched
        return capture(model, texts, sites=names, tokens="all", progress=False)


def vital_signs(store: Store, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """By layer the value of every sign (or the reason why there is none), and "rows".

    Args:
        store: from `read_layers`; the first layer has no `growth`.
        seed: of the choice of rows.

    Raises:
        TooFewStimuliError: fewer rows than twice the units.
    """
    layers = [site for site in store.sites if "|" not in site]
    found: dict[str, dict[str, Any]] = {}
    before: float | None = None
    lengths = np.bincount(np.unique(store[layers[0]].stimulus, return_inverse=True)[1])
    for view in (store[site] for site in layers):
        rows = view.torch().double()
        later = np.flatnonzero(np.asarray(view.position) > 0)
        if len(later) > ROWS:
            later = later[sample_rows(np.asarray(view.ids)[later], np.asarray(view.position)[later], m=ROWS, seed=seed)]
        if len(later) < 2 * view.d:
            raise TooFewStimuliError(
                f"{view.system}/{view.site} has {len(later)} token rows after the first of each text, for {view.d} units; a reading needs "
                f"at least {2 * view.d}: give more or longer texts"
            )
        X = rows[torch.from_numpy(later)]
        found[view.site] = {"rows": len(later)} | {
            "rank_share": _tried(lambda X=X: float(get("effective_rank")(X)) / X.shape[1]),
            **{name: _tried(lambda X=X, name=name: float(get(name)(X))) for name in ("isoscore", "two_nn", "mean_cosine")},
            "token_spread": _tried(lambda rows=rows, view=view: _token_spread(rows, view.stimulus)),
            "massive": _tried(lambda rows=rows: _massive_ratio(rows)),
            "dead": _tried(lambda X=X: _dead_share(X)),
        }
        attention = _attention_beside(view.site)
        if attention in store.sites:
            heads = store[attention].numpy().astype(float)
            found[view.site]["attention"] = _tried(lambda heads=heads: _entropy_share(heads, lengths))
        size = float(X.square().mean().sqrt())
        if before is not None:
            found[view.site]["growth"] = size / before if before > 0 and math.isfinite(size / before) else "the rows are zero or infinite"
        before = size
    return found


def ranges_of(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, list[float]]:
    """By sign the smallest and largest value over the layers of several models."""
    held = {sign.name: [layer[sign.name] for layers in found for layer in layers.values() if sign.name in layer] for sign in SIGNS}
    return {name: [min(values), max(values)] for name, values in held.items()}


def read_reference(reference: Mapping[str, Any] | str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The reference set: of this library, of a file, or as it is.

    Raises:
        ResultError: it lacks models or the range of a sign.
    """
    if isinstance(reference, Mapping):
        held: dict[str, Any] = dict(reference)
    else:
        file = files("inscape.reporting").joinpath("health_reference.json") if reference is None else Path(reference)
        try:
            held = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ResultError(
                f"the reference {reference!r} cannot be read: {error}; make one with python -m studies.health_reference"
            ) from error
    missing = [name for name in ("models", "ranges") if name not in held] or [s.name for s in SIGNS if s.name not in held["ranges"]]
    if missing:
        raise ResultError(f"the reference {reference!r} lacks {', '.join(missing)}; make one with python -m studies.health_reference")
    return held


def _read(site: str, sign: Sign, values: Mapping[str, Any], known: Mapping[str, Any]) -> Reading:
    """One sign of one layer beside the range of the reference, with room on both sides."""
    low, high = known["ranges"][sign.name]
    low, high = (low / _FACTOR, high * _FACTOR) if sign.ratio else (low - _STEP, high + _STEP)
    value = values[sign.name]
    if isinstance(value, str):
        return Reading(site, sign, None, low, high, value, values.get("rows", 0))
    verdict = "below" if value < low and sign.below else "above" if value > high and sign.above else "in range"
    return Reading(site, sign, value, low, high, verdict, values.get("rows", 0))


def _tried(compute: Any) -> float | str:
    """The number, or why there is none: one dead layer does not end the reading."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InscapeWarning)  # tokens that repeat, rows of zeros: the numbers allow for them
            value = float(compute())
    except InscapeError as error:
        return str(error)
    return value if math.isfinite(value) else f"it came out as {value}"


def _attention_beside(site: str) -> str:
    """The attention of the block of a site; "" for a site outside the blocks."""
    block = re.match(r"(.*blocks\.[^.]+)\.\w+$", site)
    return f"{block[1]}.{_ENTROPY}" if block else ""


def _token_spread(rows: Tensor, text: np.ndarray) -> float:
    """Mean over texts of ‖X − x̄‖ / ‖X‖, as the reducer `rank_collapse` gives it; texts of one token have none."""
    which = torch.from_numpy(np.unique(text, return_inverse=True)[1])
    counts = torch.bincount(which).double()
    means = torch.zeros(len(counts), rows.shape[1], dtype=torch.float64).index_add_(0, which, rows) / counts[:, None]
    apart = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, which, (rows - means[which]).square().sum(1))
    whole = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, which, rows.square().sum(1))
    several = (counts > 1) & (whole > 0)
    return float((apart[several] / whole[several]).sqrt().mean())


def _massive_ratio(rows: Tensor) -> float:
    extremes = Extremes.of(rows)
    median = extremes.quantile(0.5)
    return extremes.largest / median if median > 0 else math.inf


def _entropy_share(heads: np.ndarray, lengths: np.ndarray) -> float:
    """Mean over heads and texts of the entropy [texts, heads] over ln of the tokens; texts of one token have none."""
    several = lengths > 1
    return float((heads[several].mean(1) / np.log(lengths[several])).mean())


def _dead_share(X: Tensor) -> float:
    """The share of units whose deviation is below a millionth of the typical unit's; all of them where nothing changes."""
    deviation = (X - X[0]).square().mean(0).sqrt()
    typical = float(deviation.square().mean().sqrt())
    return float((deviation <= 1e-6 * typical).double().mean())


def _cell(reading: Reading | None) -> str:
    if reading is None:
        return "·"
    if reading.value is None:
        return "none !"
    return format_number(reading.value) + {"below": " ↓", "above": " ↑"}.get(reading.verdict, "  ")
