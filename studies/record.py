"""What a study file must have, how it is found, and how its results are kept."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
GALLERY = HERE.parent / "docs" / "gallery"

Values = dict[str, float]
Check = Callable[[Mapping[str, float]], bool]


@dataclass(frozen=True)
class Study:
    """One study: its module, and the facts that its header states."""

    path: Path
    module: ModuleType

    @property
    def slug(self) -> str:
        return self.path.stem

    @property
    def family(self) -> str:
        return self.path.parent.name

    @property
    def digest(self) -> str:
        """SHA-256 of the file: results that were made by another version of it are stale."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def paper(self) -> str:
        return self.module.PAPER

    @property
    def claim(self) -> str:
        return self.module.CLAIM

    @property
    def scale(self) -> str:
        return self.module.SCALE

    @property
    def verdict(self) -> str:
        """In words, where the outcome is not simply that of the paper."""
        return getattr(self.module, "VERDICT", "")

    @property
    def checks(self) -> dict[str, Check]:
        return self.module.CHECKS

    @property
    def control_fails(self) -> str:
        """The check that the negative control must fail."""
        return self.module.CONTROL_FAILS

    def run(self, seed: int = 0, *, small: bool = False) -> Values:
        return self.module.run(seed=seed, small=small)

    def control(self, seed: int = 0, *, small: bool = False) -> Values:
        return self.module.control(seed=seed, small=small)

    def figure(self, values: Values) -> Any:
        return self.module.figure(values)

    def failed(self, values: Values) -> list[str]:
        """Names of the checks that do not hold of these values."""
        return [name for name, holds in self.checks.items() if not holds(values)]

    def recorded(self) -> dict[str, Any] | None:
        """The results that are on record, if any."""
        file = RESULTS / f"{self.slug}.json"
        return json.loads(file.read_text()) if file.is_file() else None


def studies(part: str = "") -> list[Study]:
    """All studies whose path contains `part`, by family and name."""
    files = sorted(path for path in HERE.glob("*/*.py") if not path.name.startswith("_"))
    return [
        Study(path, importlib.import_module(f"studies.{path.parent.name}.{path.stem}"))
        for path in files
        if part in f"{path.parent.name}/{path.stem}"
    ]
