"""What happens to representations while a network learns."""

from __future__ import annotations

from inscape.training.trajectory import trajectory

__all__ = ["trajectory"]
