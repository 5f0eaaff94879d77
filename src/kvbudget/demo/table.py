"""The demo's table, for people and for programs."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kvbudget.allocator.bytes_text import format_bytes
from kvbudget.heuristics.measures import Divergence

from .result import FULL, Row, hull_advantage
from .run import DemoResult

_COLUMNS = (
    "",
    "bytes\nallowed",
    "bytes\nheld",
    "predicted\nloss",
    "proven\nbound",
    "gap",
    "measured\nKL",
    "found",
    "tok/s",
)


def make_table(result: DemoResult) -> Table:
    """One row for the full cache and one for each plan."""
    questions = result.rows[0].questions
    measure = result.profile.measure
    unit = " in nats per token" if measure == Divergence().name else ""
    table = Table(
        title=f"{result.profile.model}, contexts of {result.shown_plan.context_tokens} tokens",
        caption=(
            f"Bytes held are read from the live K and V storages. Loss and bound: "
            f"{measure}{unit}, summed over the caches. Measured KL: divergence from the "
            f"full cache in nats per token. Found: exact answers to {questions} questions about "
            f"facts in the context, asked after it was cut."
        ),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in result.rows:
        table.add_row(*_cells(row), end_section=row.solver in (FULL, "Hull"))
    return table


def summary(result: DemoResult) -> str:
    """What the table comes to, in a few lines."""
    lines = [
        f"At {budget} of the bytes Uniform diverges {times:.1f} times as much as Hull."
        for budget, times in hull_advantage(result.rows).items()
    ]
    answers = zip(result.rows, result.example.answers, strict=True)
    said = "; ".join(f"{_label(row)}: {answer.strip()}" for row, answer in answers)
    lines.append(f"One question, whose answer is {result.example.right}. Answers: {said}.")
    return "\n".join(lines)


def to_record(result: DemoResult) -> dict[str, object]:
    """The result as plain data."""
    return {
        "model": result.profile.model,
        "geometry": result.profile.geometry.to_json(),
        "measure": result.profile.measure,
        "heuristic": result.profile.heuristic,
        "context_tokens": result.shown_plan.context_tokens,
        "rows": [row.to_record() for row in result.rows],
        "example": {
            "right": result.example.right,
            "answers": list(result.example.answers),
        },
        "uniform_over_hull": hull_advantage(result.rows),
    }


def _label(row: Row) -> str:
    return row.solver if row.solver == FULL else f"{row.solver} {row.budget}"


def _cells(row: Row) -> tuple[str, ...]:
    planned = row.solver != FULL
    return (
        _label(row),
        format_bytes(row.budget_bytes),
        format_bytes(row.held_bytes),
        f"{row.predicted_loss:.3g}" if planned else "",
        f"{row.bound:.3g}" if planned else "",
        f"{row.gap:.1%}" if planned else "",
        f"{row.divergence:.4f}",
        f"{row.needle_accuracy:.0%}",
        f"{row.tokens_per_second:.0f}",
    )
