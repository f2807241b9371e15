"""Training runs that collapse, each with a healthy twin: what a monitor is proved on."""

from __future__ import annotations

from inscape.zoo.collapses.base import TrainingRun, collapse_names, collapse_run

__all__ = ["TrainingRun", "collapse_names", "collapse_run"]
