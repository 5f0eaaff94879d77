"""Which needles are found: by their depth in the context and by its length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kvbudget.allocator.arrays import float_array, refuse
from kvbudget.allocator.checks import check_count, check_text
from kvbudget.allocator.picture_style import SHADES, fitting, new_figure, styled

from .cells import ink_on
from .picture import Picture
from .words import counted, several, share

COLUMNS = 3
CELL_WIDTH, CELL_HEIGHT = 0.47, 0.34
LETTER = 0.075
"""Inches of a digit below the cells."""
MOST_NUMBERS = 12
"""Lengths or depths up to which every cell has its number."""


@dataclass(frozen=True, slots=True)
class NeedleGrid:
    """How often needles at a depth of contexts of a length were found.

    Args:
        name: What read them, such as ``"full cache"``.
        lengths: Tokens of the contexts, [lengths], rising.
        depths: Share of the context before the needle, [depths], rising in 0..1.
        found: Share of the needles that were found, [depths, lengths].
        samples: Needles tried in each cell.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If lengths or depths do not rise, a share is not in 0..1, or the shape of
            ``found`` is another one.
    """

    name: str
    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    found: tuple[tuple[float, ...], ...]
    samples: int

    def __post_init__(self) -> None:
        """Check every field."""
        check_text("name", self.name)
        check_count("samples", self.samples)
        for axis in ("lengths", "depths"):
            values = float_array(axis, getattr(self, axis), (axis,))
            if (np.diff(values) <= 0).any() or values[0] < 0:
                raise ValueError(f"`{axis}` must rise from 0 or more, but got {values.tolist()}.")
        found = float_array("found", self.found, ("depths", "lengths"))
        if found.shape != (len(self.depths), len(self.lengths)):
            raise ValueError(
                "`found` must have the shape [depths, lengths] ="
                f" {(len(self.depths), len(self.lengths))}, but got {found.shape}."
            )
        outside = (found < 0) | (found > 1)
        refuse("found", found, outside, ("depths", "lengths"), "must be in 0..1")

    @property
    def mean(self) -> float:
        """Share of all needles that were found."""
        return float(np.mean(self.found))


def draw_needles(grids: NeedleGrid | Sequence[NeedleGrid]) -> Picture:
    """Draw one or several grids of needles side by side: light cells were found.

    Args:
        grids: What was found; all with the same lengths and depths.

    Raises:
        ValueError: If there is none, or they have other lengths or depths.
    """
    shown = (grids,) if isinstance(grids, NeedleGrid) else tuple(grids)
    if not shown:
        raise ValueError("`grids` must hold at least one grid, but is empty.")
    if len({(grid.lengths, grid.depths) for grid in shown}) > 1:
        raise ValueError("`grids` must all have the same lengths and depths, but they differ.")
    first = shown[0]
    columns = min(len(shown), COLUMNS)
    rows = -(-len(shown) // columns)
    height = max(1.2, min(CELL_HEIGHT * len(first.depths), 3.0))
    with styled():
        figure = new_figure(1.7 + columns * (_width(first) + 0.15), 0.5 + rows * (height + 0.75))
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        meshes = [_draw_grid(axes, grid) for axes, grid in zip(panels, shown, strict=False)]
        _draw_bar(figure, list(panels), meshes[0], first.samples)
        figure.supxlabel("length of the context (tokens)", size=9)
        figure.supylabel("depth of the needle", size=9)
    return Picture(figure, "Needles found by depth and length", _describe(shown))


def _width(grid: NeedleGrid) -> float:
    """Inches of the cells side by side."""
    return max(1.9, min(CELL_WIDTH * len(grid.lengths), 3.4))


def _draw_grid(axes: Axes, grid: NeedleGrid) -> QuadMesh:
    """The cells of one grid."""
    found, size = np.array(grid.found), (len(grid.depths), len(grid.lengths))
    has_numbers = max(size) <= MOST_NUMBERS
    width = 1.0 if has_numbers else 0.0
    mesh = axes.pcolormesh(found, cmap=SHADES, vmin=0, vmax=1, edgecolors="white", linewidth=width)
    axes.set_title(f"{fitting(grid.name)}\n{share(grid.mean)} found", parse_math=False, size=9)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2)
    widest = LETTER * (len(str(grid.lengths[-1])) + 1)
    depths = np.arange(0, size[0], -(-size[0] // MOST_NUMBERS))
    lengths = np.arange(0, size[1], -(-size[1] // int(_width(grid) / widest)))
    axes.set_xticks(lengths + 0.5, [str(grid.lengths[at]) for at in lengths])
    axes.set_yticks(depths + 0.5, [f"{grid.depths[at]:.0%}" for at in depths])
    axes.set_ylim(size[0], 0)
    for row, column in np.ndindex(size) if has_numbers else ():
        value = float(found[row, column])
        ink = ink_on(colormaps[SHADES](value))
        at = column + 0.5, row + 0.5
        axes.text(*at, f"{value * 100:.0f}", ha="center", va="center", color=ink, size=8)
    return mesh


def _draw_bar(figure: Figure, panels: list[Axes], mesh: QuadMesh, samples: int) -> None:
    bar = figure.colorbar(mesh, ax=panels, pad=0.02, format=PercentFormatter(1.0))
    bar.set_label(f"found of {counted(samples, 'needle')} a cell")
    bar.outline.set_visible(False)


def _describe(grids: Sequence[NeedleGrid]) -> str:
    """What is to be seen, in words."""
    first = grids[0]
    totals = several([f"{grid.name} {share(grid.mean)}" for grid in grids])
    weak = []
    for grid in grids:
        found = np.array(grid.found)
        if found.min() < 1:
            row, column = np.unravel_index(int(found.argmin()), found.shape)
            where = f"{grid.depths[row]:.0%} depth of {grid.lengths[column]} tokens"
            weak.append(f"{grid.name} is weakest at {where} ({share(float(found.min()))})")
    return (
        f"Grid of needles found by depth ({first.depths[0]:.0%} to {first.depths[-1]:.0%}) and"
        f" length of the context ({first.lengths[0]} to {first.lengths[-1]} tokens),"
        f" {counted(first.samples, 'needle')} a cell. Found in all: {totals}."
        + "".join(f" {text[0].upper()}{text[1:]}." for text in weak)
    )
