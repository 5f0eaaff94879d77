"""What came of an evaluation: one row for each task and cache."""

import json
import math
from dataclasses import asdict, dataclass, fields
from types import UnionType
from typing import Any

from kvbudget.allocator.errors import BadFile
from kvbudget.allocator.files import FilePath, bad_file, read_whole, write_whole

from .origin import Origin

FULL = "full cache"
TEXTS = ("task", "cache", "unit", "solver", "heuristic", "adaptation", "right", "said")
MAY_LACK = ("full_score", "divergence", "token_seconds")


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One cache on one task.

    Args:
        task: Name of the task.
        cache: `full cache`, or the name of the plan.
        score: Mean over the questions, from 0 to 1; of texts the geometric mean of their
            perplexities, where less is better.
        unit: `share right` or `perplexity`.
        full_score: The same with the full cache; None if that was not run.
        divergence: Mean over the questions of the divergence from the full cache at the tokens of
            the right answer and of what follows it, in nats per token; None if that was not run.
        scores: Score of each question; of a text its perplexity.
        samples: Contexts that were read.
        asked_bytes: Bytes allowed; of the full cache those of the longest sequence.
        held_bytes: Most bytes that the live storages of keys and values of one cache held.
        peak_bytes: Most bytes that lived while the longest context was read: keys, values and all
            else that is computed, without the model's weights.
        prefill_seconds: Time of reading a context, and of cutting it; median. A question that is
            known is read along.
        token_seconds: Time of one generated token but the first, median; None where none is.
        solver: What divided the plan; empty for the full cache.
        heuristic: What chose the tokens to keep; empty for the full cache.
        adaptation: What divided the bytes anew for each context, if anything did.
        right: The right answer to the first question.
        said: What the model answered.
    """

    task: str
    cache: str
    score: float
    unit: str
    full_score: float | None
    divergence: float | None
    scores: tuple[float, ...]
    samples: int
    asked_bytes: int
    held_bytes: int
    peak_bytes: int
    prefill_seconds: float
    token_seconds: float | None
    solver: str = ""
    heuristic: str = ""
    adaptation: str = ""
    right: str = ""
    said: str = ""

    @property
    def questions(self) -> int:
        """How many questions were asked."""
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Rows, task by task in the order given; prints as a table.

    Args:
        rows: One for each task and cache, the full cache first.
        context_tokens: Most tokens of context, question and answer together; None if all samples
            came out of a file.
        question_known: Whether the questions were read before the cache was cut; of a conversation
            the first.
        seed: Seed of the first sample of each task.
        origin: What the rows were measured with.
        text: Fingerprint of the prose that samples were made of; empty if none was drawn.
    """

    rows: tuple[EvaluationRow, ...]
    context_tokens: int | None
    question_known: bool
    seed: int
    origin: Origin
    text: str = ""

    def __str__(self) -> str:
        """An aligned table, one block for each task."""
        from .evaluation_table import table

        return table(self)

    def to_records(self) -> list[dict[str, Any]]:
        """All rows as JSON types, each with what it was measured with.

        Figures that are no numbers, of a model that gives none, become None.
        """
        about = {
            "text": self.text,
            "context_tokens": self.context_tokens,
            "question_known": self.question_known,
            "seed": self.seed,
            **asdict(self.origin),
        }
        return [{**_plain(asdict(row)), **about} for row in self.rows]

    def save(self, path: FilePath) -> None:
        """Write all rows, one JSON object a line.

        Raises:
            FileNotFoundError: The folder does not exist.
            IsADirectoryError: The path is a folder.
        """
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in self.to_records()]
        write_whole(path, "".join(lines).encode())

    @classmethod
    def load(cls, path: FilePath) -> "Evaluation":
        """Read the rows that `save` wrote.

        Raises:
            BadFile: The file is missing, or holds something else.
        """
        try:
            text = read_whole(path, "evaluation").decode()
            records = [json.loads(line) for line in text.splitlines()]
            runs = {json.dumps(_about(record)) for record in records}
            found = None if len(runs) != 1 else cls._of(records)
        except BadFile:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise bad_file(path, "evaluation", ValueError("it holds other rows")) from error
        if found is None:
            what = ValueError(f"it must hold the rows of one run, but holds those of {len(runs)}")
            raise bad_file(path, "evaluation", what)
        return found

    @classmethod
    def _of(cls, records: list[dict[str, Any]]) -> "Evaluation":
        about = _about(records[0])
        return cls(
            rows=tuple(EvaluationRow(**_row_fields(record)) for record in records),
            context_tokens=about["context_tokens"],
            question_known=about["question_known"],
            seed=about["seed"],
            origin=Origin(**{each.name: about[each.name] for each in fields(Origin)}),
            text=about["text"],
        )


def _about(record: dict[str, Any]) -> dict[str, Any]:
    """What all rows of a run have in common."""
    names = ("context_tokens", "question_known", "seed", *(each.name for each in fields(Origin)))
    return {**{name: record[name] for name in names}, "text": record.get("text", "")}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row with None for what JSON does not know, and a list of scores."""
    found = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return {**found, "scores": [each if math.isfinite(each) else None for each in row["scores"]]}


def _row_fields(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of a row.

    Raises:
        KeyError: One is missing.
        TypeError: One is of another kind.
    """
    found = {each.name: record[each.name] for each in fields(EvaluationRow)}
    scores = tuple(math.nan if each is None else float(each) for each in found["scores"])
    found |= {"scores": scores, "score": math.nan if found["score"] is None else found["score"]}
    for name, value in found.items():
        if value is not None and not isinstance(value, _kind_of(name)):
            raise TypeError(f"{name} is {value!r}")
        if value is None and name not in MAY_LACK:
            raise TypeError(f"{name} is missing")
    return found


def _kind_of(name: str) -> type | UnionType:
    if name == "scores":
        return tuple
    return str if name in TEXTS else int | float
