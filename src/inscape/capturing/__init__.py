"""Capture: run a model over stimuli and write a store, or feed what comes next."""

from __future__ import annotations

from inscape.capturing.run import capture, stream
from inscape.capturing.session import ShardRows
from inscape.capturing.stimuli import Stimuli

__all__ = ["ShardRows", "Stimuli", "capture", "stream"]
