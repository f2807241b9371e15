"""Figures as text for an HTML page: small inline SVG that takes the page's colors, or a picture where it would be large."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable

from matplotlib.figure import Figure

from inscape.plots.theme import page_colors, rc

LARGEST_SVG = 250_000


def inline(draw: Callable[[str], Figure], *, name: str, alt: str) -> str:
    """A figure as an `<svg>` element for a page that may be light or dark.

    Text takes the page's font and color, lines take the color that fits the paper, so one drawing serves both. A drawing with
    too many marks becomes two pictures, of which the page shows the fitting one.

    Args:
        draw: takes the name of a theme and gives the figure.
        name: unique on the page; identifiers inside the drawing start with it.
        alt: what a reader who does not see the figure is told.
    """
    figure = draw("page")
    text = vector(figure)
    if len(text) > LARGEST_SVG:
        return _picture(draw, alt)
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL).strip()
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", text)
    # Two digits are enough for coordinates, which stand inside tags; what a reader sees, between tags, stays as it is.
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag.group(0)), text)
    # Several drawings share a page: what one defines must not be found by another.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{name}-\2"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    colors = page_colors()
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: colors.get(found.group(0), found.group(0)), text)
    text = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?)px [^;\"]*", r"font: \1\2px var(--figure-font, sans-serif)", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    box = re.search(r'<svg[^>]*viewBox="([^"]+)"', text)
    view = box.group(1) if box else "0 0 100 100"
    width = float(figure.get_size_inches()[0]) * 96
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}" role="img" '
        f'aria-label="{html.escape(alt, quote=True)}" style="width:{width:.0f}px;max-width:100%;height:auto">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)


def vector(figure: Figure) -> str:
    """The figure as a stand-alone SVG file: same drawing, same bytes."""
    buffer = io.StringIO()
    with rc():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _picture(draw: Callable[[str], Figure], alt: str, dpi: int = 144) -> str:
    sources: dict[str, str] = {}
    width = 0.0
    for theme in ("light", "dark"):
        figure = draw(theme)
        width = float(figure.get_size_inches()[0]) * 96
        buffer = io.BytesIO()
        with rc():
            figure.savefig(buffer, format="png", dpi=dpi, transparent=True, metadata={"Software": None})
        sources[theme] = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{sources["dark"]}">'
        f'<img alt="{html.escape(alt, quote=True)}" style="width:{width:.0f}px;max-width:100%" src="{sources["light"]}"></picture>'
    )
