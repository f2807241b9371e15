"""Precision: refuses half of it where it would drown a unit's variation in its mean, or overflow; tells of rows that are no numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.capturing.stimuli import Stimuli
from inscape.errors import DegenerateInputError, InscapeWarning, StimuliError, nearest

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
# A step of the stored dtype at a unit's mean, as a part of the unit's standard deviation, beyond which storage is refused.
STEP = 0.05
# Fewer rows than these say too little about a unit's standard deviation.
ENOUGH = 16
_SAMPLE = 2048


@dataclass
class _Running:
    n: int
    mean: np.ndarray
    m2: np.ndarray


class PrecisionGuard:
    """Watches rows before they are narrowed; keeps running moments per site, so that later shards are judged with the earlier ones."""

    def __init__(self) -> None:
        self._seen: dict[str, _Running] = {}

    def problem(self, site: str, rows: Tensor, stored: torch.dtype) -> str | None:
        """What speaks against storing these rows as `stored`, or None; a dtype at least as fine and wide is never refused."""
        given, kept = torch.finfo(rows.dtype), torch.finfo(stored)
        if rows.numel() == 0 or (kept.eps <= given.eps and kept.max >= given.max):
            return None
        low, high = (float(v) for v in torch.aminmax(torch.nan_to_num(rows, 0.0, 0.0, 0.0) if not _finite(rows) else rows))
        if max(-low, high) > kept.max:
            worst = torch.nan_to_num(rows.abs(), 0.0, 0.0, 0.0)
            row, unit = divmod(int(worst.argmax()), rows.shape[1])
            return f"unit {unit} reaches {float(rows[row, unit]):.6g}, and {_name(stored)} ends at {kept.max:.6g}"
        moments = self._update(site, rows)
        if moments.n < ENOUGH:
            return None
        sd = np.sqrt(moments.m2 / moments.n)
        step = ulp(moments.mean, stored)
        ratio = np.divide(step, sd, out=np.zeros_like(sd), where=sd > 0)  # a constant unit has no variation to lose
        unit = int(ratio.argmax())
        if ratio[unit] <= STEP:
            return None
        return (
            f"unit {unit} has mean {moments.mean[unit]:.6g} and standard deviation {sd[unit]:.6g}, where {_name(stored)} has steps of "
            f"{step[unit]:.3g}: {ratio[unit]:.2g} standard deviations (at most {STEP} is allowed)"
        )

    def check(self, site: str, rows: Tensor, stored: torch.dtype) -> None:
        """Raises `DegenerateInputError` when the rows must not be stored as `stored`."""
        found = self.problem(site, rows, stored)
        if found is not None:
            raise DegenerateInputError(
                f"site {site!r} cannot be stored as {_name(stored)}: {found}. Capture with dtype='float32', or dtype='auto' to let each "
                "site decide"
            )

    def _update(self, site: str, rows: Tensor) -> _Running:
        stride = max(1, rows.shape[0] // _SAMPLE)
        x = rows[::stride].double().numpy()
        x = x[np.isfinite(x).all(1)]
        old = self._seen.get(site)
        if len(x) == 0:
            return old or _Running(0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1]))
        n, mean = len(x), x.mean(0)
        m2 = np.square(x - mean).sum(0)
        if old is not None:
            delta, total = mean - old.mean, n + old.n
            mean, m2, n = old.mean + delta * n / total, m2 + old.m2 + np.square(delta) * (n * old.n / total), total
        self._seen[site] = _Running(n, mean, m2)
        return self._seen[site]


class Unsound:
    """Tells of rows that hold NaN or infinity: once for each site by a warning, and in the notes of each shard."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def look(self, site: str, rows: Tensor, owners: pa.Table, stimuli: Stimuli) -> int:
        """How many of a site's rows are not finite; `owners` is their index."""
        if _finite(rows):
            return 0
        bad = (~torch.isfinite(rows).all(1)).nonzero().flatten()
        if site not in self.told:
            self.told.add(site)
            first = stimuli.table["stimulus"][owners["stimulus"][int(bad[0])].as_py()].as_py()
            narrow = rows.dtype in (torch.float16, torch.bfloat16)
            advice = f"; the model computes in {_name(rows.dtype)}, so load it with dtype='float32' or 'bfloat16'" if narrow else ""
            warnings.warn(
                f"site {site!r} gives NaN or infinity in {len(bad)} of {len(rows)} rows (the first belongs to stimulus {first!r}){advice}. "
                "They are kept as they are, and the shard's notes count them",
                InscapeWarning,
                stacklevel=2,
            )
        return len(bad)


def read_dtype(asked: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype of stored rows that a word means; None for the activations' own.

    Raises:
        StimuliError: a store cannot hold it.
    """
    if asked is None or isinstance(asked, torch.dtype):
        if asked is not None and asked not in DTYPES.values():
            raise StimuliError(f"dtype={asked} cannot be stored; expected one of {', '.join(DTYPES)} or 'auto'")
        return asked
    if asked not in DTYPES:
        raise StimuliError(f"dtype={asked!r} is unknown; nearest: {nearest(asked, [*DTYPES, 'auto'])}")
    return DTYPES[asked]


def ulp(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """The distance between neighboring numbers of `dtype` at `values`."""
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(values), info.smallest_normal)))
    return np.exp2(exponent) * info.eps


def _finite(rows: Tensor) -> bool:
    return bool(torch.isfinite(rows.sum())) or bool(torch.isfinite(rows).all())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
