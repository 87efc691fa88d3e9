"""How the figures of reports look, for print and phones, and how they become files."""

from __future__ import annotations

import base64
import io
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,
}
#: Pixels an inch of a picture, and of a page at its usual size.
DPI, PAGE_DPI = 150, 96


@dataclass(frozen=True)
class Picture:
    """A figure of a report: the name of its file, a caption that says how to read it, and the bytes of a PNG."""

    file: str
    caption: str
    png: bytes

    @property
    def data(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def width(self) -> int:
        """Its width on a page, in CSS pixels; the letters have the size that the figure gives them there."""
        pixels: int
        (pixels,) = struct.unpack_from(">I", self.png, 16)  # of the header, which begins every PNG
        return round(pixels * PAGE_DPI / DPI)


def style() -> Any:
    """The house's settings, as a context manager; make and draw figures within it."""
    return mpl.rc_context(STYLE)


def png(figure: Figure) -> bytes:
    """A figure as a PNG file; the same data give the same bytes."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a value in letters that the font lacks
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()
