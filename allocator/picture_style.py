"""One look for all pictures: readable in grey, for the colour-blind, and for those who hear them.

Amounts are shades of a colour map whose lightness rises steadily. Lines are told apart by marker
and dashes first, and by shade only then. Every file carries a title and a description.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from .files import FilePath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "svg")
SHADES = "cividis"
"""Colour map for amounts, dark for little."""
MARKERS = "osD^v<>pPX*hd"
STYLES = ("-", "--", ":", "-.")
INK, NOTE, FAINT = "black", "0.35", "0.9"
"""Greys of what matters, of what explains it, and of what only guides the eye."""
MOST_LETTERS = 72
"""Longest line of a title."""
SETTINGS: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "hatch.color": "0.75",
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 5.0,
    "savefig.dpi": 150.0,
    # what is written depends on the picture alone, and its words stay words
    "svg.hashsalt": "kvbudget",
    "svg.fonttype": "none",
}


def kind_of(path: FilePath) -> str:
    """Return the kind of picture that a path asks for.

    Raises:
        ValueError: If it is none that can be drawn.
    """
    kind = PurePath(os.fspath(path)).suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise ValueError(f"`path` must end in .png or .svg, but got {os.fspath(path)!r}.")
    return kind


@contextmanager
def styled() -> Iterator[None]:
    """What is drawn inside looks like ours, whatever the user has set, which is then put back."""
    from matplotlib import style

    with style.context(["default", SETTINGS]):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure that belongs to no window and no notebook.

    Args:
        width: In inches.
        height: In inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def file_bytes(figure: "Figure", kind: str, title: str, description: str) -> bytes:
    """A figure as the bytes of a file; equal figures give equal bytes.

    A PNG has title and description as texts `Title` and `Description`; an SVG as `<title>` and
    `<desc>`, which browsers and screen readers know.

    Args:
        figure: What to write.
        kind: ``"png"`` or ``"svg"``.
        title: A few words on what it shows.
        description: What is to be seen in it, in words.
    """
    title, description = in_words(title), in_words(description)
    content = io.BytesIO()
    with styled():
        if kind == "svg":
            figure.savefig(content, format=kind, metadata={"Date": None, "Title": title})
            return with_description(content.getvalue(), description)
        figure.savefig(content, format="png")
    return pressed(content, {"Title": title, "Description": description}, SETTINGS["savefig.dpi"])


def pressed(png: io.BytesIO, texts: Mapping[str, str], dpi: float) -> bytes:
    """A PNG of at most 256 colours, of a third of the bytes, with texts.

    Lines, letters and one colour map need no more, and pictures go into repositories and pages.

    Args:
        png: What to press.
        texts: Texts to put into it, by keyword.
        dpi: Dots per inch at which it is to be shown.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with Image.open(png) as image:
        few = image.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    about = PngInfo()
    for keyword, text in texts.items():
        about.add_text(keyword, text)
    content = io.BytesIO()
    few.save(content, format="png", optimize=True, pnginfo=about, dpi=(dpi, dpi))
    return content.getvalue()


def with_description(svg: bytes, description: str) -> bytes:
    """An SVG whose title is followed by a description, and which says that it is a picture."""
    spoken = f"</title>\n <desc>{escape(description)}</desc>".encode()
    return svg.replace(b"</title>", spoken, 1).replace(b"<svg ", b'<svg role="img" ', 1)


def in_words(text: str) -> str:
    """A text on one line, without characters that XML cannot hold."""
    return re.sub(r"[\s\x00-\x1f\x7f\ufffe\uffff]+", " ", text).strip()


def fitting(text: str) -> str:
    """A line that fits a title: of a long one the end is shown, where paths differ."""
    line = in_words(text)
    return line if len(line) <= MOST_LETTERS else f"...{line[3 - MOST_LETTERS :]}"
