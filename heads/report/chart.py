"""One chart in all its forms: SVG for a wide and a narrow screen, in light and dark, PNG for slides, and its data."""

import base64
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynaprop.pipeline.printable import printable

_WIDE, _NARROW = 7.6, 4.0  # inches
_RC: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: crisp, small, and in any script that the reader's machine has
    "svg.hashsalt": "dynaprop",
    "text.parse_math": False,  # a class may be called "$"
}


@dataclass(frozen=True)
class Look:
    """Colours of one scheme. Models differ in lightness as well as in hue, and in their markers."""

    ink: str
    muted: str
    grid: str
    paper: str
    shades: tuple[str, ...]
    """From none to all, for the matrix."""
    models: dict[str, str]


LIGHT = Look(
    ink="#1d2126",
    muted="#5d6670",
    grid="#e3e6e9",
    paper="#ffffff",
    shades=("#f3f5f7", "#9cc3e6", "#0b4a85"),
    models={
        "student": "#0072b2",
        "student-kd": "#56a5d8",
        "teacher": "#00875f",
        "static-avg": "#c98a00",
        "static-weighted": "#aa4499",
        "dynamic": "#d1490c",
        "dynamic-shuffled": "#7a7a7a",
    },
)
DARK = Look(
    ink="#e7e9ec",
    muted="#a2abb5",
    grid="#31373e",
    paper="#15181c",
    shades=("#1d2228", "#245f96", "#a8d4ff"),
    models={
        "student": "#3d9be0",
        "student-kd": "#9ad2f7",
        "teacher": "#2cc295",
        "static-avg": "#f0b429",
        "static-weighted": "#e08bc8",
        "dynamic": "#ff7a3d",
        "dynamic-shuffled": "#9a9a9a",
    },
)
MARKERS = {
    "student": "o",
    "student-kd": "p",
    "teacher": "s",
    "static-avg": "^",
    "static-weighted": "v",
    "dynamic": "D",
    "dynamic-shuffled": "X",
}

Draw = Callable[[Figure, Look, bool], None]
"""Draws into an empty figure with the colours of a look; the flag is True for a narrow screen."""


@dataclass(frozen=True)
class Chart:
    """A figure of the report; each of its forms is drawn when it is first asked for.

    Args:
        draw: the drawing.
        height: inches, on a wide screen.
        narrow_height: inches, on a narrow one; ``height`` by default.
        draw_png, png_height: for the PNG, where it shows more than the page's picture.
    """

    draw: Draw
    _: KW_ONLY
    name: str
    """Stem of its files."""
    title: str
    caption: str
    alt: str
    """What the picture shows, for those who cannot see it."""
    data: pd.DataFrame
    height: float
    narrow_height: float | None = None
    draw_png: Draw | None = None
    png_height: float | None = None

    @cached_property
    def png(self) -> bytes:
        return _png(self.draw_png or self.draw, self.png_height or self.height)

    @cached_property
    def light(self) -> str:
        """SVG as a data URI, as are the other three."""
        return _svg(self.draw, LIGHT, _WIDE, self.height)

    @cached_property
    def dark(self) -> str:
        return _svg(self.draw, DARK, _WIDE, self.height)

    @cached_property
    def light_narrow(self) -> str:
        return _svg(self.draw, LIGHT, _NARROW, self.narrow_height or self.height)

    @cached_property
    def dark_narrow(self) -> str:
        return _svg(self.draw, DARK, _NARROW, self.narrow_height or self.height)


def plain(text: str, length: int = 30) -> str:
    """A name as it can be drawn: what cannot be seen is escaped, and it is cut where it is too long."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def file_stem(text: str) -> str:
    """A name for a file: a catalog's name stays, else all but letters, digits, ``.`` and ``-`` become ``_``."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        return text
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")[:80] or "unnamed"


def grid_of(axes: Axes, look: Look, *, axis: str) -> None:
    """Quiet lines behind the data along one axis, or ``both``."""
    axes.set_axisbelow(True)
    axes.grid(axis=axis, color=look.grid, linewidth=0.8)  # type: ignore[arg-type]


def _render(draw: Draw, look: Look, width: float, height: float, *, narrow: bool, kind: str) -> bytes:
    colours: dict[Any, Any] = {
        "text.color": look.ink,
        "axes.labelcolor": look.ink,
        "axes.edgecolor": look.muted,
        "xtick.color": look.muted,
        "ytick.color": look.muted,
        "axes.facecolor": "none",
        "figure.facecolor": look.paper if kind == "png" else "none",
    }
    out = io.BytesIO()
    with matplotlib.rc_context({**_RC, **colours}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has more fonts than we do
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure, look, narrow)
        metadata = {"Date": None, "Creator": None} if kind == "svg" else None
        figure.savefig(out, format=kind, dpi=180, metadata=metadata)
    return out.getvalue()


def _png(draw: Draw, height: float) -> bytes:
    return _render(draw, LIGHT, _WIDE, height, narrow=False, kind="png")


def _svg(draw: Draw, look: Look, width: float, height: float) -> str:
    svg = _render(draw, look, width, height, narrow=width == _NARROW, kind="svg").decode()
    # The page's own typeface; the metrics are DejaVu's, which is wider than all of these.
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif", svg)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
