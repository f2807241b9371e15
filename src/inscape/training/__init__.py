"""What happens to representations while a network learns: measured as it goes on, or afterwards from checkpoints."""

from __future__ import annotations

from inscape.training import objectives as objectives
from inscape.training.alarm import Alarm
from inscape.training.callbacks import huggingface_callback, lightning_callback
from inscape.training.detection import ChangeDetector, alarm_threshold
from inscape.training.monitor import Monitor, read_log
from inscape.training.phases import Phase, convergence_to_final, phases, representation_drift
from inscape.training.trajectory import trajectory

__all__ = [
    "Alarm",
    "ChangeDetector",
    "Monitor",
    "Phase",
    "alarm_threshold",
    "convergence_to_final",
    "huggingface_callback",
    "lightning_callback",
    "phases",
    "read_log",
    "representation_drift",
    "trajectory",
]
