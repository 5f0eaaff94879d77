"""A picture of a comparison: loss against memory, one line per solver, above the proven bound."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Floats
from .bytes_text import format_bytes
from .picture_style import (
    INK,
    MARKERS,
    SHADES,
    STYLES,
    file_bytes,
    fitting,
    kind_of,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .compare import Comparison, ComparisonRow

__all__ = ["UNITS", "draw", "draw_solvers", "kind_of", "lines_of", "picture", "scale_losses"]

UNITS = {"divergence": "nats per token", "ablation": "nats per token"}
"""Units of the measures that have one."""
WIDE = 8.0
"""Ratio of the largest to the least number from which an axis is logarithmic."""
NEGLIGIBLE = 1e-12
"""Losses below this share of the largest one are nothing but rounding."""
LEGEND_LINES = 30
NEAREST = 0.07
"""Least distance of two labels below the axis, as a share of its length."""


def picture(comparison: "Comparison", kind: str) -> bytes:
    """The picture as the bytes of a file; the same comparison always gives the same bytes.

    Args:
        comparison: What to draw.
        kind: ``"png"`` or ``"svg"``.

    Raises:
        ValueError: If no row has a plan.
    """
    return file_bytes(draw(comparison), kind, "Solvers side by side", describe(comparison))


def draw(comparison: "Comparison") -> "Figure":
    """The picture as a figure that belongs to no window and no notebook.

    Raises:
        ValueError: If no row has a plan.
    """
    lines = lines_of(comparison)
    if not lines:
        raise ValueError("`rows` must hold a plan to draw, but no row has one. Raise the budgets.")
    num_columns = 1 + len(lines) // LEGEND_LINES
    height = 1.0 + 0.18 * min(1 + len(lines), LEGEND_LINES)
    with styled():
        figure = new_figure(6.8 + 2.2 * num_columns, max(5.2, height))
        axes = figure.subplots()
        draw_solvers(axes, lines)
        draw_bounds(axes, comparison)
        scale_axes(axes, comparison)
        axes.set_title(fitting(comparison.model), parse_math=False)
        axes.grid()
        figure.legend(loc="outside right upper", ncols=num_columns, handlelength=3.5)
    return figure


def describe(comparison: "Comparison") -> str:
    """What is to be seen in the picture, in words."""
    lines = lines_of(comparison)
    least: dict[int, ComparisonRow] = {}
    for row in (row for rows in lines.values() for row in rows):
        # of equals the one that stands later, which loses less on the whole
        if row.budget_bytes not in least or row.loss <= least[row.budget_bytes].loss:
            least[row.budget_bytes] = row
    best = "; ".join(
        f"at {row.budget} {row.loss:.3g} by {row.solver}, where {bound:.3g} is the proven bound"
        for row, bound in ((least[at], comparison.bounds[at]) for at in sorted(least))
    )
    return (
        f"Loss over memory of plans by {len(lines)} solver{'s' * (len(lines) > 1)} for"
        f" {comparison.model or 'an unnamed model'}, with the proven bound at each budget."
        f" Least loss: {best}."
    )


def lines_of(comparison: "Comparison") -> dict[str, list["ComparisonRow"]]:
    """Rows with a plan by solver, each by rising budget, the solver that loses most first."""
    lines: dict[str, list[ComparisonRow]] = {}
    for row in sorted(comparison.rows, key=lambda row: row.budget_bytes):
        if row.has_plan:
            lines.setdefault(row.solver, []).append(row)
    return dict(sorted(lines.items(), key=lambda pair: -float(np.mean(heights(pair[1])))))


def heights(rows: list["ComparisonRow"]) -> list[float]:
    """Where the losses of a line stand on the paper, up to scale."""
    return [float(np.log(max(row.loss, 1e-300))) for row in rows]


def draw_solvers(
    axes: "Axes", lines: Mapping[str, list["ComparisonRow"]], *, joined: bool = True
) -> None:
    """Draw the plans of each solver, told apart by marker, dashes and shade.

    Args:
        axes: Where to.
        lines: Rows by solver.
        joined: Whether a line leads from mark to mark.
    """
    from matplotlib import colormaps

    shades = colormaps[SHADES](np.linspace(0, 0.7, len(lines)))
    for place, (name, rows) in enumerate(lines.items()):
        axes.plot(
            [row.budget_bytes for row in rows],
            [row.loss for row in rows],
            # their numbers have no common divisor, so 52 lines differ from each other
            linestyle=STYLES[place % len(STYLES)] if joined else "none",
            marker=MARKERS[place % len(MARKERS)],
            # hollow, so that what lies behind is seen
            markerfacecolor="none",
            markersize=7,
            linewidth=1.2,
            color=shades[place],
            label=name,
        )


def draw_bounds(axes: "Axes", comparison: "Comparison") -> None:
    """Draw the proven bound at each budget."""
    axes.plot(
        *zip(*sorted(comparison.bounds.items()), strict=True),
        # nothing is proved between the budgets, so no line joins the marks
        linestyle="none",
        marker="_",
        markersize=22,
        markeredgewidth=2.5,
        markeredgecolor=INK,
        zorder=1.5,
        label="proven bound",
    )


def scale_axes(axes: "Axes", comparison: "Comparison") -> None:
    """Choose the scales, and say what the axes show and in which unit."""
    rows = [row for row in comparison.rows if row.has_plan]
    scale_losses(axes, np.array([[row.loss, row.bound] for row in rows]))
    budgets = {row.budget_bytes: row.budget for row in rows}
    if max(budgets) >= WIDE * max(min(budgets), 1):
        axes.set_xscale("log")
    mark_budgets(axes, budgets)
    unit = ", ".join(filter(None, (comparison.measure, UNITS.get(comparison.measure))))
    axes.set_ylabel("loss of the plan" + (f" ({unit})" if unit else ""))
    axes.set_xlabel("memory allowed for all KV caches (budget as given, bytes)")


def scale_losses(axes: "Axes", losses: Floats) -> None:
    """Make the loss axis logarithmic where that shows more, with room for 0 if there is one."""
    seen = losses[losses > NEGLIGIBLE * losses.max()]
    if not len(seen) or seen.max() < WIDE * seen.min():
        return
    if len(seen) == losses.size:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=float(seen.min()))


def mark_budgets(axes: "Axes", budgets: dict[int, str]) -> None:
    """Label the budgets below the axis, leaving out labels that would touch.

    Args:
        axes: Where to.
        budgets: Each budget in bytes, and as it was given.
    """
    places: list[int] = []
    for place in sorted(budgets):
        if not places or distance(axes, places[-1], place) > NEAREST:
            places.append(place)
    sizes = {place: format_bytes(place) for place in places}
    axes.set_xticks(places, [f"{budgets[at]}\n{size}" for at, size in sizes.items()])
    axes.xaxis.minorticks_off()


def distance(axes: "Axes", one: int, other: int) -> float:
    """Distance of two places on the lower axis, as a share of its length."""
    ends = axes.transData.transform([(one, 1.0), (other, 1.0)])[:, 0]
    return float(abs(ends[1] - ends[0]) / axes.bbox.width)
