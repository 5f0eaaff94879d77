"""Memory that caches hold while a model generates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from kvbudget.allocator import format_bytes
from kvbudget.allocator.arrays import int_array
from kvbudget.allocator.bytes_text import BINARY_UNITS
from kvbudget.allocator.checks import check_count, check_text
from kvbudget.allocator.picture_style import FAINT, INK, MARKERS, SHADES, new_figure, styled

from .picture import Picture

ROOM, LINE = 1.12, 0.12
MARKS, SHIFT = np.array([0.0, 0.3, 0.6]), 0.03


@dataclass(frozen=True, slots=True)
class MemoryTrace:
    """What a cache held after each step of a generation.

    Args:
        name: Which cache, such as ``"full cache"``.
        tokens: Tokens read so far at each step, [steps], rising.
        held_bytes: Bytes held at each step, [steps].
        budget_bytes: Bytes it was allowed; None if there was no limit.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If there are no steps, tokens do not rise, or the fields differ in length.
    """

    name: str
    tokens: tuple[int, ...]
    held_bytes: tuple[int, ...]
    budget_bytes: int | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check_text("name", self.name)
        if self.budget_bytes is not None:
            check_count("budget_bytes", self.budget_bytes)
        tokens = int_array("tokens", self.tokens, ("steps",))
        held = int_array("held_bytes", self.held_bytes, ("steps",))
        if len(tokens) != len(held):
            raise ValueError(
                "`tokens` and `held_bytes` must have one entry per step, but have"
                f" {len(tokens)} and {len(held)}."
            )
        if (np.diff(tokens) <= 0).any():
            raise ValueError("`tokens` must rise from step to step, but do not.")


def draw_memory(traces: MemoryTrace | Sequence[MemoryTrace]) -> Picture:
    """Draw the memory that caches held after each step of a generation, and their budgets.

    What exists besides while a prompt is read, one layer's keys and values, is not in it.

    Args:
        traces: One or several generations.

    Raises:
        ValueError: If there is none.
    """
    shown = (traces,) if isinstance(traces, MemoryTrace) else tuple(traces)
    if not shown:
        raise ValueError("`traces` must hold at least one trace, but is empty.")
    most = max(max(trace.held_bytes) for trace in shown)
    most = max([most, *(trace.budget_bytes or 0 for trace in shown)])
    with styled():
        figure = new_figure(6.4, 3.6)
        axes = figure.subplots()
        unit, size = _unit(most)
        axes.set_ylim(0, ROOM * most / size)
        _draw_lines(axes, shown, size)
        _draw_budgets(axes, shown, size)
        axes.set_xlabel("tokens read (prompt and generated)")
        axes.set_ylabel(f"memory held ({unit})")
        axes.grid(color=FAINT)
        figure.legend(loc="outside upper left", ncols=3, handlelength=3.0)
    return Picture(figure, "Memory held over a generation", _describe(shown))


def _unit(num_bytes: int) -> tuple[str, int]:
    """The largest unit of which there is at least one, and its bytes."""
    power = 0
    while num_bytes >= 1024 ** (power + 1) and power < len(BINARY_UNITS) - 1:
        power += 1
    return BINARY_UNITS[power], 1024**power


def _draw_budgets(axes: Axes, traces: Sequence[MemoryTrace], size: int) -> None:
    """A line across for each budget, over the lines of what is held."""
    budgets = sorted({trace.budget_bytes for trace in traces if trace.budget_bytes is not None})
    free = -1.0
    for budget in budgets:
        height = budget / size
        axes.axhline(height, color=INK, linestyle=(0, (5, 3)), linewidth=1.0, zorder=3)
        # names of budgets that are nearly the same stand above each other
        free = max(height, free + LINE * axes.get_ylim()[1])
        text = f"budget\n{format_bytes(budget)}"
        axes.text(1.01, free, text, transform=axes.get_yaxis_transform(), va="center", size=8)


def _draw_lines(axes: Axes, traces: Sequence[MemoryTrace], size: int) -> None:
    """A line for each cache, told apart by marks and shade."""
    shades = colormaps[SHADES](np.linspace(0.3, 0.85, len(traces)))
    for place, trace in enumerate(traces):
        # a few marks, at other places than those of the line before
        marks = (MARKS + SHIFT * (place % len(MARKERS))) * (len(trace.tokens) - 1)
        axes.plot(
            trace.tokens,
            np.array(trace.held_bytes) / size,
            marker=MARKERS[place % len(MARKERS)],
            markevery=np.unique(marks.astype(np.int64)).tolist(),
            # broad and light, so that a budget which is all used up is seen on it
            linewidth=3.5,
            color=shades[place],
            label=trace.name,
        )


def _describe(traces: Sequence[MemoryTrace]) -> str:
    """What is to be seen, in words."""
    first = min(trace.tokens[0] for trace in traces)
    last = max(trace.tokens[-1] for trace in traces)
    texts = "; ".join(map(_held_text, traces))
    return (
        f"Memory that KV caches hold while a model generates, from {first} to {last} tokens"
        f" read: {texts}."
    )


def _held_text(trace: MemoryTrace) -> str:
    start, end = (format_bytes(trace.held_bytes[at]) for at in (0, -1))
    most = format_bytes(max(trace.held_bytes))
    held = f"{start} throughout" if start == end == most else f"{start} at first, {end} at last"
    peak = "" if most in (start, end) else f", {most} at most"
    limit = trace.budget_bytes
    return f"{trace.name} {held}{peak}" + (
        "" if limit is None else f", where {format_bytes(limit)} is allowed"
    )
