"""Data sets in the form of kvpress: a row is a context, a question, and the right answer.

Columns: context, question, answer_prefix, answer, max_new_tokens, task. Files of JSON lines or CSV.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from kvbudget.allocator.errors import BadFile
from kvbudget.allocator.files import FilePath, bad_file, read_whole, write_whole

from .cells import answers_in, count_in
from .sample import Form, Question, Sample
from .scoring import any_found
from .tasks import BUILT_IN

COLUMNS = ("context", "question", "answer_prefix", "answer", "max_new_tokens", "task")
NEEDED = ("context", "question", "answer")
DEFAULT_TASK = "dataset"
LONGEST_CELL = 2**31 - 1
Row = Mapping[str, object]


def read_samples(path: FilePath) -> tuple[Sample, ...]:
    """Read a data set; rows of the same context and task become one sample.

    Needed are context, question and answer; an answer is a text, a number, or a list of what should
    be found in what is said, also as pandas writes lists into a CSV cell. Rows of our own tasks are
    judged as those are; others by the share of their
    answers that is found, and `qa` tasks of RULER by whether one of them is.

    Args:
        path: A file that ends in `.jsonl`, `.json` (a row a line, or a list of rows) or `.csv`.

    Raises:
        BadFile: The file is missing, or holds something else; says which line.
    """
    kind = check_kind(path)
    raw = read_whole(path, "data set")
    try:
        text = raw.decode("utf-8-sig")
        rows = _rows_of_csv(text) if kind == ".csv" else _rows_of_json(text)
        return grouped(_question_of(number, row) for number, row in rows)
    except (ValueError, RecursionError, csv.Error) as error:
        raise bad_file(path, "data set", error) from error


def write_samples(path: FilePath, samples: Iterable[Sample]) -> int:
    """Write samples as a data set, for this library or for kvpress' evaluation.

    Texts that merely go on ask nothing, and are left out.

    Args:
        path: A file that ends in `.jsonl`, `.json` or `.csv`.
        samples: What to write.

    Returns:
        How many rows were written.

    Raises:
        BadFile: The name of the file ends otherwise.
        FileNotFoundError: The folder does not exist.
        ValueError: There is nothing to write.
    """
    kind = check_kind(path)
    rows = [row for sample in samples for row in rows_of(sample)]
    if not rows:
        raise ValueError(
            "`samples` must ask something to become a data set, but texts that merely go on do "
            "not. Take another task, too."
        )
    if kind == ".csv":
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "answer": json.dumps(row["answer"])} for row in rows)
        text = out.getvalue()
    elif kind == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(path, text.encode())
    return len(rows)


def rows_of(sample: Sample) -> list[dict[str, object]]:
    """One row for each question; none for a text that goes on."""
    if sample.form.is_text:
        return []
    return [
        {
            "context": sample.context,
            "question": question.text,
            "answer_prefix": question.answer_prefix,
            "answer": list(question.answers),
            "max_new_tokens": question.max_new_tokens,
            "task": sample.task,
        }
        for question in sample.questions
    ]


def grouped(rows: Iterable[tuple[str, str, Question]]) -> tuple[Sample, ...]:
    """Samples of rows (context, task, question): those of one context and task share a reading.

    Raises:
        ValueError: There are none.
    """
    groups: dict[tuple[str, str], list[Question]] = {}
    for context, task, question in rows:
        groups.setdefault((context, task), []).append(question)
    if not groups:
        raise ValueError("it holds no rows")
    return tuple(
        Sample(context, tuple(questions), task, form=form_of(task))
        for (context, task), questions in groups.items()
    )


def form_of(task: str) -> Form:
    """How a task's answers are judged, by its name."""
    ours = {each.name: each.form for each in BUILT_IN}
    # string_match_part of RULER: its questions of reading have several ways to be answered
    return ours.get(task, Form(any_found) if task.startswith("qa") else Form())


def check_kind(path: FilePath) -> str:
    """How the name of a data set ends.

    Raises:
        BadFile: Not in a way that is known.
    """
    kind = Path(path).suffix.lower()
    if kind not in (".jsonl", ".json", ".csv"):
        raise BadFile(f"A data set must be a .jsonl, .json or .csv file, but got {Path(path)}.")
    return kind


def _rows_of_json(text: str) -> list[tuple[int, Row]]:
    if text.lstrip().startswith("["):
        return list(enumerate(json.loads(text), 1))
    # no splitlines: a text may hold other ends of lines, which JSON leaves as they are
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(number, _parsed(number, line)) for number, line in lines]


def _parsed(number: int, line: str) -> Row:
    try:
        found: Row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from error
    return found


def _rows_of_csv(text: str) -> list[tuple[int, Row]]:
    # contexts are longer than what csv takes for a mistake
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        return list(enumerate(csv.DictReader(io.StringIO(text, newline="")), 1))
    finally:
        csv.field_size_limit(before)


def _question_of(number: int, row: object) -> tuple[str, str, Question]:
    """Context, task and question of a row.

    Raises:
        ValueError: It is no row, or a column is missing or of the wrong kind; says which.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"row {number} must be an object with columns, but is {row!r:.40}")
    missing = [column for column in NEEDED if row.get(column) is None]
    if missing:
        raise ValueError(f"row {number} must have the column {missing[0]!r}")
    question = Question(
        str(row["question"]),
        str(row.get("answer_prefix") or ""),
        answers_in(number, row["answer"]),
        count_in(number, row.get("max_new_tokens")),
    )
    return str(row["context"]), str(row.get("task") or DEFAULT_TASK), question
