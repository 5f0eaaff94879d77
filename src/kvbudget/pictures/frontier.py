"""Loss over memory: what is proved to be out of reach, and where the solvers' plans lie."""

from collections.abc import Mapping
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes

from kvbudget.allocator import Comparison, ComparisonRow, Path, format_bytes
from kvbudget.allocator.comparison_plot import draw_solvers, heights, lines_of
from kvbudget.allocator.path import full_bytes
from kvbudget.allocator.picture_style import FAINT, INK, NOTE, fitting, new_figure, styled

from .loss_curves import loss_label
from .picture import Picture
from .words import amount, counted, of_model, several, share

POINTS = 400
SHARES = (0.1, 0.25, 0.5)
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_DOTS = 300
NEGLIGIBLE = 1e-5
"""Losses below this share of the largest one are cut off below."""
ROUNDING, TINY = 1e-6, 1e-12


def draw_frontier(path: Path, comparison: Comparison | None = None) -> Picture:
    """Draw the least loss that is possible over the memory, and the plans that solvers found.

    No plan lies in the hatched part below the line: that is the proven bound. The dots on the
    line are plans too, those that the path finds by a lookup.

    Args:
        path: The frontier, from ``solve_path``.
        comparison: Plans of several solvers at several budgets, from ``compare``, for the same
            profile, context and batch size; none if left out.

    Raises:
        ValueError: If the comparison holds no plan, or one that the path proves to be impossible.
    """
    lines = {} if comparison is None else lines_of(comparison)
    if comparison is not None:
        _check_lines(path, lines)
    with styled():
        figure = new_figure(7.8, 4.4)
        axes = figure.subplots()
        _draw_bound(axes, path)
        draw_solvers(axes, lines, joined=False)
        _scale(axes, path, lines)
        axes.set_title(_heading(path), parse_math=False)
        figure.legend(loc="outside right upper", handlelength=1.5)
    return Picture(figure, "Loss over memory, and what no plan can beat", _describe(path, lines))


def _check_lines(path: Path, lines: Mapping[str, list[ComparisonRow]]) -> None:
    """Refuse a comparison without plans, and one that was made from something else."""
    if not lines:
        raise ValueError("`comparison` must hold a plan to draw, but no row has one.")
    for row in (row for rows in lines.values() for row in rows):
        bound = path.loss_at(row.budget_bytes)
        if row.loss < bound * (1 - ROUNDING) - TINY * path.loss[0]:
            raise ValueError(
                "`comparison` must be of the same profile, context, batch size and constraints as"
                f" `path`, but {row.solver} loses {amount(row.loss)} at {row.budget}, where the"
                f" path proves {amount(bound)} to be the least."
            )


def _draw_bound(axes: Axes, path: Path) -> None:
    """The frontier, the breakpoints that are plans, and the part that no plan reaches."""
    # between breakpoints the bound is straight, which a logarithmic scale bends
    has_dots = len(path) <= MOST_DOTS
    corners = path.budget_bytes if has_dots else path.budget_bytes[[0, -1]]
    memory = np.union1d(np.linspace(corners[0], corners[-1], POINTS), corners)
    loss = np.interp(memory, path.budget_bytes, path.loss)
    axes.plot(memory, loss, "-", color=INK, linewidth=1.2, label="proven bound")
    below = axes.fill_between(memory, loss, label="out of reach")
    # what lies left of the first plan fits no plan at all
    left = axes.axvspan(0, float(path.budget_bytes[0]))
    for part in (below, left):
        part.set(hatch="////", facecolor="none", linewidth=0.0)
    if has_dots:
        at = path.budget_bytes, path.loss
        axes.plot(*at, ".", color=NOTE, markersize=3.5, label="plans on the bound")


def _scale(axes: Axes, path: Path, lines: Mapping[str, list[ComparisonRow]]) -> None:
    """Losses on a logarithmic scale down to what matters, memory as shares and bytes."""
    losses = [row.loss for rows in lines.values() for row in rows] + path.loss.tolist()
    top = max(losses)
    if top > 0:
        axes.set_yscale("log")
        axes.set_ylim(min(loss for loss in losses if loss >= NEGLIGIBLE * top) / 2, 2 * top)
    else:
        axes.set_ylim(0, 1)
    whole = full_bytes(path.problem)
    ticks = [at * whole for at in QUARTERS]
    axes.set_xticks(ticks, [f"{share(at / whole)}\n{format_bytes(round(at))}" for at in ticks])
    axes.set_xlim(0, 1.02 * whole)
    axes.set_xlabel("memory of all KV caches")
    origin = path.problem.origin
    axes.set_ylabel(loss_label("" if origin is None else origin.measure))
    axes.grid(color=FAINT)


def _heading(path: Path) -> str:
    origin = path.problem.origin
    if origin is None:
        return "units without a model"
    batch = "" if origin.batch_size == 1 else f", batch size {origin.batch_size}"
    return f"{fitting(of_model(origin.model))}\ncontext of {origin.context_tokens} tokens{batch}"


def _describe(path: Path, lines: Mapping[str, list[ComparisonRow]]) -> str:
    """What is to be seen, in words."""
    whole = full_bytes(path.problem)
    shares = [at for at in SHARES if path.budget_bytes[0] <= at * whole]
    bounds = [f"{amount(path.loss_at(round(at * whole)))} at {share(at)}" for at in shares]
    bounds = bounds or [f"{amount(path.loss[0])} at {share(path.kept_fraction[0])}"]
    solvers = f" Beside it the plans of {several(list(lines))}." if lines else ""
    origin = path.problem.origin
    return (
        f"Least possible loss of {of_model('' if origin is None else origin.model)} over the"
        f" memory of its KV caches, a falling curve through {counted(len(path), 'plan')}. Proven"
        f" bound: {several(bounds)} of {format_bytes(whole)}.{solvers}{_nearest(lines)}"
    )


def _nearest(lines: Mapping[str, list[ComparisonRow]]) -> str:
    """Which solver comes nearest to the bound, and which stays farthest from it.

    Nothing where none stands out, or where some found no plan at a budget.
    """
    losses = {name: heights(rows) for name, rows in lines.items()}
    if len(lines) < 2 or len(set(map(len, losses.values()))) > 1:
        return ""
    means = {name: fmean(each) for name, each in losses.items()}
    nearest, farthest = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[farthest] - means[nearest] < ROUNDING:
        return ""
    return f" {nearest} comes nearest to the bound and {farthest} stays farthest from it."
