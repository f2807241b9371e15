"""Rows straight from a model: kept in memory where they are few, and on disk where they are many, for as long as a fit needs them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from inscape.capturing import capture
from inscape.capturing.streams import StimulusStream
from inscape.dictionaries.run import processes_at_work
from inscape.errors import MemoryBudgetError
from inscape.models import Model
from inscape.store import Store

# Rows beyond this lie on disk; a training reads them in pools of half as much.
IN_MEMORY = 2**30
ROWS = "activations"


def is_model(data: Any) -> bool:
    """Whether data is `(model, stimuli, site)`."""
    return isinstance(data, tuple) and len(data) == 3 and (isinstance(data[0], (Model, nn.Module)) or isinstance(data[2], (str, list)))


@contextmanager
def captured(data: tuple[Any, Any, Any], to: str | Path | None, progress: bool | None) -> Generator[Store]:
    """The rows of all tokens of `(model, stimuli, site)`.

    With `to` they lie in a folder of it while the fit lasts, so that an interrupted one does not run the model again; without, and where
    several processes train together, in memory or in a temporary folder.
    """
    model, stimuli, site = data
    sites = site if isinstance(site, str) else list(site)
    options: dict[str, Any] = {"tokens": "all", "progress": progress}
    if to is not None and processes_at_work() == 1:
        yield capture(model, stimuli, sites, to=Path(to) / ROWS, **options)
        shutil.rmtree(Path(to) / ROWS)
        return
    store: Store | None = None
    if StimulusStream.of(stimuli) is None:
        with suppress(MemoryBudgetError):
            store = capture(model, stimuli, sites, memory=IN_MEMORY, **options)
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="inscape-") as folder:
        yield capture(model, stimuli, sites, to=Path(folder) / ROWS, **options)
