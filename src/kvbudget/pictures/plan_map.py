"""How many tokens each cache keeps: layers from left to right, KV heads from top to bottom."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from kvbudget.allocator import Plan, format_bytes
from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.picture_style import FAINT, NOTE, SHADES, fitting, new_figure, styled

from .cells import ink_on, number_cells
from .picture import Picture
from .words import caches, counted, layer_name, of_model, share

WIDTH, LEAST_HEIGHT, TALLEST = 9.0, 0.8, 5.0
CELL_WIDTH, CELL_HEIGHT = 0.78, 0.38
LETTER = 0.082
"""Inches of a digit, with room on both sides of a number."""
# the same in every picture, and such that 2 % and 10 % can be told apart
SCALE = PowerNorm(0.5, vmin=0.0, vmax=1.0)
TICKS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes on the paper, in inches.

    Args:
        layers: Columns.
        kv_heads: Rows.
        digits: Of the longest number.
    """

    layers: int
    kv_heads: int
    digits: int

    @property
    def cell_width(self) -> float:
        """Narrower the more layers there are."""
        return min(CELL_WIDTH, WIDTH / self.layers)

    @property
    def height(self) -> float:
        """Height of all rows."""
        return min(max(CELL_HEIGHT * self.kv_heads, LEAST_HEIGHT), TALLEST)

    @property
    def has_numbers(self) -> bool:
        """Whether a number fits into a cell."""
        tall_enough = self.height / self.kv_heads > CELL_HEIGHT / 2
        return self.cell_width >= LETTER * (self.digits + 1) and tall_enough


def draw_plan(plan: Plan) -> Picture:
    """Draw how many tokens each KV cache of a model keeps.

    Small models get the numbers; above the caches of larger ones stand the means of the layers.
    Where a layer has fewer KV heads than another, its last places are hatched.

    Args:
        plan: The plan to draw.
    """
    layers, kv_heads = plan.capacity_tokens.shape
    grid = Grid(layers, kv_heads, len(str(plan.capacity_tokens.max())))
    with styled():
        extra = 1.2 if grid.has_numbers else 2.4
        width = max(4.6, 1.6 + grid.cell_width * layers)
        figure = new_figure(width, extra + grid.height)
        if grid.has_numbers:
            top = below = figure.subplots()
        else:
            ratio = {"height_ratios": [1.0, grid.height]}
            top, below = figure.subplots(2, 1, sharex=True, gridspec_kw=ratio)
            _draw_means(top, plan)
        mesh = _draw_caches(below, plan, grid)
        top.set_title(_heading(plan), parse_math=False)
        beside = [top] if top is below else [top, below]
        bar = figure.colorbar(mesh, ax=beside, pad=0.02, ticks=TICKS)
        bar.ax.set_yticks(TICKS, [share(tick) for tick in TICKS])
        bar.ax.minorticks_off()
        bar.set_label(f"kept of {plan.context_tokens} tokens")
        bar.outline.set_visible(False)
    return Picture(figure, "Tokens kept by each KV cache", _describe(plan))


def _draw_caches(axes: Axes, plan: Plan, grid: Grid) -> QuadMesh:
    """The shades, and the numbers where they fit."""
    present = plan.geometry.present
    shown = np.ma.masked_array(plan.kept_fraction, ~present).T
    width = 1.0 if grid.has_numbers else 0.0
    mesh = axes.pcolormesh(shown, cmap=SHADES, norm=SCALE, edgecolors="white", linewidth=width)
    axes.patch.set(hatch="////", facecolor="white", edgecolor="0.75")
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set_xlabel("layer" if present.all() else "layer (hatched: it has no such KV head)")
    axes.set_ylabel("KV head")
    number_cells(axes.xaxis, grid.layers, most=20)
    number_cells(axes.yaxis, grid.kv_heads, most=12)
    if grid.has_numbers:
        _write_numbers(axes, plan)
    return mesh


def _write_numbers(axes: Axes, plan: Plan) -> None:
    shade = colormaps[SHADES]
    for layer, head in np.argwhere(plan.geometry.present).tolist():
        count = f"{plan.capacity_tokens[layer, head]}"
        ink = ink_on(shade(SCALE(plan.kept_fraction[layer, head])))
        axes.text(layer + 0.5, head + 0.5, count, ha="center", va="center", color=ink, size=8)


def _draw_means(axes: Axes, plan: Plan) -> None:
    """A bar for each layer, as high as its caches are large on average."""
    means = _layer_means(plan)
    axes.bar(np.arange(len(means)) + 0.5, means, width=0.8, color=NOTE)
    axes.set_ylabel("layer mean")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, len(means))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.grid(axis="y", color=FAINT)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)


def _layer_means(plan: Plan) -> Floats:
    """Mean tokens per cache of each layer, [layers]."""
    heads = plan.geometry.present.sum(axis=1)
    return np.asarray(plan.capacity_tokens.sum(axis=1) / heads, dtype=np.float64)


def _heading(plan: Plan) -> str:
    full = plan.geometry.full_bytes(plan.context_tokens, plan.batch_size)
    memory = f"{format_bytes(plan.used_bytes)}, {share(plan.used_bytes / full)} of the full cache"
    return f"{fitting(of_model(plan.model))}\n{plan.certificate.solver}: {memory}"


def _describe(plan: Plan) -> str:
    """What is to be seen, in words."""
    geometry = plan.geometry
    full = geometry.full_bytes(plan.context_tokens, plan.batch_size)
    held = plan.capacity_tokens[geometry.present]
    return (
        f"Heat map of the tokens that each KV cache of {of_model(plan.model)} keeps"
        f" ({caches(geometry)}), of {plan.context_tokens}, under the plan of"
        f" {plan.certificate.solver} for {share(plan.used_bytes / full)} of the full cache:"
        + (
            f" {held.min()} in every cache."
            if held.min() == held.max()
            else f" from {held.min()} to {held.max()}, on average {held.mean():.0f}."
            + _describe_extremes(plan)
        )
    )


def _describe_extremes(plan: Plan) -> str:
    """Which cache and which layers keep most and least, where there is a difference."""
    tokens, means = plan.capacity_tokens, _layer_means(plan)
    layers, heads = np.nonzero(tokens == tokens.max())
    more = f" and {counted(len(layers) - 1, 'other')}" if len(layers) > 1 else ""
    single = f" Most is kept in layer {layers[0]}, KV head {heads[0]}{more}."
    if means.min() == means.max():
        return f"{single} The means of the layers are equal."
    return (
        f"{single} By layer the mean is largest in"
        f" {layer_name(int(means.argmax()), means.max())}"
        f" and smallest in {layer_name(int(means.argmin()), means.min())}."
    )
