"""How charts look, and how they get into the page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

#: Okabe and Ito's palette, which color-blind readers tell apart.
PALETTE = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
NO_SPLIT = "#777777"
#: Widths in inches: over the whole page, half of it, a third.
WIDE, HALF, THIRD = 11.0, 5.4, 3.55
LONGEST_LABEL = 14

#: Text stays text, in whatever fonts the reader has; "$" in a value is no formula; the same data give the same bytes.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mian",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "0.4",
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Chart:
    """A figure of the page: its title, a caption that says how to read it, and the picture as a data URI."""

    title: str
    caption: str
    image: str


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; made without pyplot: no window opens and nothing has to be closed."""
    return Figure(figsize=(width, height), layout="constrained")


def chart(title: str, caption: str, drawn: Figure) -> Chart:
    """Make a figure part of the page; call it, and all that draws, within :func:`style`."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts may have it
        drawn.savefig(content, format="svg", dpi=200, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = content.getvalue()
    svg = svg[svg.index(b"<svg") :]  # without the document type, which names a file elsewhere
    return Chart(title, caption, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}")


def style() -> Any:
    """The house's settings, as a context manager."""
    return mpl.rc_context(STYLE)


def grid(axes: Axes) -> None:
    """Light lines to read values by."""
    axes.grid(axis="y", color="0.9")


def split_colors(names: Iterable[str]) -> dict[str | None, str]:
    """A color for each split."""
    colors: dict[str | None, str] = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}
    return {**colors, None: NO_SPLIT}


def percent_axis(axis: Axis) -> None:
    """Ticks of shares as percent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def label(text: str) -> str:
    """A value as an axis can show it: short, on one line, and no characters that SVG cannot hold."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return clean if len(clean) <= LONGEST_LABEL else f"{clean[: LONGEST_LABEL - 1]}…"
