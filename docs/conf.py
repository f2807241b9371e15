"""Sphinx settings. The reference and the pages of the measures are written from the code before each build (generate.py)."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402

import inscape  # noqa: E402

generate.write(HERE / "_generated")

project = "inscape"
author = "The inscape authors"
copyright = author
release = version = inscape.__version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "inscape"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
