"""The demo: what inscape is for, told by networks that it trains on the spot, or by a model of your own."""

from __future__ import annotations

from inscape.demo.run import run_demo

__all__ = ["run_demo"]
