"""A comparison as a table of text."""

from itertools import groupby
from typing import TYPE_CHECKING

from .bytes_text import format_bytes

if TYPE_CHECKING:
    from .compare import Comparison, ComparisonRow

HEADINGS = ("solver", "loss", "x bound", "bound", "gap", "memory", "time", "status")
TO_THE_LEFT = {"solver", "status"}
MOST_DECIMALS = 1e5


def table(comparison: "Comparison") -> str:
    """An aligned table, one block per budget, and at its end why some solvers have no plan.

    "x bound" is the loss as a multiple of the tightest bound that any solver of the comparison
    proved for the budget; "bound" and "gap" are what the row's own solver proved.
    """
    bounds = comparison.bounds
    rows = [row for row in comparison.rows if row.status is not None or row.failed]
    cells = [cells_of(row, bounds.get(row.budget_bytes, 0.0)) for row in rows]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *cells, strict=True)]
    lines = [align(HEADINGS, widths)]
    blocks = groupby(zip(rows, cells, strict=True), key=lambda pair: pair[0].budget)
    for _, block in blocks:
        pairs = list(block)
        lines += ["", title(pairs[0][0], bounds)]
        lines += [align(each, widths) for _, each in pairs]
    believed = [] if comparison.check is None else ["", f"Losses checked: {comparison.check}."]
    return "\n".join([*lines, *notes(comparison), *believed])


def title(row: "ComparisonRow", bounds: dict[int, float]) -> str:
    """One line above the rows of a budget: its bytes and what is proven."""
    size = format_bytes(row.budget_bytes)
    name = f"Budget {row.budget}" + ("" if row.budget == size else f" ({size})")
    if row.budget_bytes not in bounds:
        return f"{name}: no plan"
    return f"{name}: every plan loses at least {bounds[row.budget_bytes]:.6g}"


def cells_of(row: "ComparisonRow", bound: float) -> tuple[str, ...]:
    """The row as text, one cell per heading.

    Args:
        row: The row.
        bound: Tightest bound that is proven for its budget.
    """
    numbers = (f"{row.loss:.6g}", multiple(row.loss, bound), f"{row.bound:.6g}")
    memory = (percent(row.gap), format_bytes(row.used_bytes))
    return (
        row.solver,
        *((*numbers, *memory) if row.has_plan else "-----"),
        f"{1000 * row.seconds:.1f} ms",
        row.outcome,
    )


def multiple(loss: float, bound: float) -> str:
    """A loss as a multiple of a bound, where that means something."""
    if bound <= 0:
        return "-"
    ratio = loss / bound
    return f"{ratio:.2f}" if ratio < MOST_DECIMALS else f"{ratio:.1e}"


def percent(share: float) -> str:
    """A share in percent, where nothing but 0 itself reads as 0."""
    return "<0.01 %" if 0 < share < 1e-4 else f"{100 * share:.2f} %"


def align(cells: tuple[str, ...], widths: list[int]) -> str:
    """One line of the table: text to the left, numbers to the right."""
    padded = (
        cell.ljust(width) if heading in TO_THE_LEFT else cell.rjust(width)
        for heading, cell, width in zip(HEADINGS, cells, widths, strict=True)
    )
    return "  ".join(padded).rstrip()


def notes(comparison: "Comparison") -> list[str]:
    """One line for each reason not to have a plan, with the solvers or the budget it is for."""
    subjects: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.note:
            subject = row.solver if row.status is None else f"Budget {row.budget}"
            known = subjects.setdefault(row.note, [])
            known += [] if subject in known else [subject]
    lines = [f"{', '.join(known)}: {note}" for note, known in subjects.items()]
    return ["", *lines] if lines else []
