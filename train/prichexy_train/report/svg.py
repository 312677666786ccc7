"""A matplotlib figure as SVG that stands inside a page and takes the page's colours.

A figure is drawn in place-holder colours; in the text of the SVG each becomes a CSS variable of the
page (``--ink``, ``--series-1`` …), so that one drawing serves light and dark. Lettering stays
lettering: it can be read aloud, searched, and set in the page's own fonts.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["GRID", "INK", "QUIET", "SERIES", "as_svg", "new_figure", "style"]

#: Place-holders; ``as_svg`` puts the page's variables in their stead.
INK: Final = "#0a0b01"
QUIET: Final = "#0a0b02"
GRID: Final = "#0a0b03"
SERIES: Final = tuple(f"#0a0c{number:02x}" for number in range(1, 9))

_VARIABLES: Final = {
    INK: "var(--text)",
    QUIET: "var(--quiet)",
    GRID: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)},
}
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prichexy",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
}
_ID: Final = re.compile(r'\bid="([^"]+)"')
_REFERENCE: Final = re.compile(r'(href="#|url\(#)([^")]+)')
_SIZE: Final = re.compile(r'<svg ([^>]*?)width="[\d.]+pt"([^>]*?)height="[\d.]+pt"([^>]*)>')


def style() -> AbstractContextManager[None]:
    """Give the context in which a figure of the page is made, drawn and written."""
    return rc_context(_STYLE)


def new_figure(width: float, height: float, *, right: float = 0.1) -> tuple[Figure, Axes]:
    """Give an empty figure of so many inches and its one pair of axes, with a quiet grid.

    The margins are fixed, so that drawings side by side line up; ``right`` makes room there.
    """
    figure = Figure(figsize=(width, height))
    figure.patch.set_visible(False)
    left, bottom, top = 0.55, 0.42, 0.12
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    return figure, axes


def as_svg(figure: Figure, name: str) -> str:
    """Give ``figure`` as an ``<svg>`` element that a screen reader passes over.

    The page says in words beside it what it shows. ``name`` (letters, digits, hyphens; one a page)
    keeps the identifiers of one drawing from those of the next. The same figure gives the same
    text with the same version of matplotlib.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A style element of an inline drawing would hold for the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = _ID.sub(rf'id="{name}-\1"', text)
    text = _REFERENCE.sub(rf"\1{name}-\2", text)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    # The page sets the width; a drawing is as tall as its proportions say.
    return _SIZE.sub(r'<svg \1\2\3 aria-hidden="true" focusable="false">', text, count=1).strip()
