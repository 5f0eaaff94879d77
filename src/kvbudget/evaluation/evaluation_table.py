"""An evaluation as a table of text."""

from itertools import groupby
from typing import TYPE_CHECKING

from kvbudget.allocator import format_bytes

if TYPE_CHECKING:
    from .evaluation import Evaluation, EvaluationRow

HEADINGS = (
    "", "score", "divergence", "allowed", "held", "peak", "prefill", "per token",
)  # fmt: skip
PERPLEXITY = "perplexity"


def table(evaluation: "Evaluation") -> str:
    """One block for each task, under a line that says what is counted."""
    blocks = [(task, list(rows)) for task, rows in groupby(evaluation.rows, lambda row: row.task)]
    cells = [cells_of(row) for row in evaluation.rows]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *cells, strict=True)]
    lines = [title(evaluation), "", align(HEADINGS, widths)]
    for task, rows in blocks:
        lines += ["", f"{task}: {counted(rows[0])}"]
        lines += [align(cells_of(row), widths) for row in rows]
    return "\n".join([*lines, "", *notes(evaluation)])


def title(evaluation: "Evaluation") -> str:
    """The model and what it was given to read."""
    size = evaluation.context_tokens
    read = "contexts of a file" if size is None else f"{size} tokens in all"
    known = "known" if evaluation.question_known else "unknown"
    return f"{evaluation.origin.model}: {read}, question {known} when the cache is cut"


def counted(row: "EvaluationRow") -> str:
    """What a task's score counts."""
    of = f"{row.samples} contexts" if row.samples > 1 else "1 context"
    if row.unit == PERPLEXITY:
        return f"perplexity (less is better), {of}"
    questions = f"{row.questions} questions" if row.questions > 1 else "1 question"
    return f"share right, {questions} on {of}"


def cells_of(row: "EvaluationRow") -> tuple[str, ...]:
    """The row as text, one cell per heading."""
    score = f"{row.score:.2f}" if row.unit == PERPLEXITY else f"{100 * row.score:.0f}%"
    nats = "" if row.divergence is None else f"{row.divergence:.4f}"
    per_token = "" if row.token_seconds is None else f"{1000 * row.token_seconds:.1f} ms"
    sizes = (format_bytes(each) for each in (row.asked_bytes, row.held_bytes, row.peak_bytes))
    seconds = f"{1000 * row.prefill_seconds:.0f} ms"
    return (f"  {row.cache}", score, nats, *sizes, seconds, per_token)


def align(cells: tuple[str, ...], widths: list[int]) -> str:
    """One line: the name to the left, numbers to the right."""
    first, *others = zip(cells, widths, strict=True)
    numbers = (cell.rjust(width) for cell, width in others)
    return "  ".join([first[0].ljust(first[1]), *numbers]).rstrip()


def notes(evaluation: "Evaluation") -> list[str]:
    """What the columns mean."""
    lines = [
        "Divergence: from the full cache, in nats per token of the right answers. Held: live keys",
        "and values. Peak: all that is computed and lives while a context is read, weights apart.",
    ]
    poor = poor_tasks(evaluation.rows)
    if poor:
        lines.append(f"The model can hardly do these with its full cache: {', '.join(poor)}.")
    return lines


def poor_tasks(rows: tuple["EvaluationRow", ...]) -> list[str]:
    """Tasks of which the full cache gets less than half right."""
    found = {
        row.task: None
        for row in rows
        if row.unit != PERPLEXITY and row.full_score is not None and row.full_score < 0.5
    }
    return list(found)
