"""The prompts that both libraries read, in one file of token ids.

Imports nothing but the standard library, because both environments read it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

CONTEXT_TOKENS, FUTURE_TOKENS = 1024, 256
FIT, CHOOSE, TEST = "fit", "choose", "test"


@dataclass(frozen=True, slots=True)
class PeerTrial:
    """A context that is cut before its future is known.

    Args:
        use: Whether plans are measured on it, chosen on it, or everything is compared on it.
        kind: What it is made of.
        number: Which one of its use and kind, from 0.
        context: Token ids that are read before the cache is cut.
        future: Token ids that follow.
        answers: Where in `future` each answer begins and ends; its terminator stands at the end.
    """

    use: str
    kind: str
    number: int
    context: tuple[int, ...]
    future: tuple[int, ...]
    answers: tuple[tuple[int, int], ...]


def write_trials(path: Path, trials: Iterable[PeerTrial]) -> None:
    """Write one JSON line per trial, to a temporary file that is then renamed."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text("".join(json.dumps(asdict(each)) + "\n" for each in trials))
    unfinished.replace(path)


def read_trials(path: Path, use: str) -> list[PeerTrial]:
    """Read the trials of one use, in rounds: the first of each kind, the second of each, ..."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    trials = [
        PeerTrial(
            row["use"],
            row["kind"],
            row["number"],
            tuple(row["context"]),
            tuple(row["future"]),
            tuple((start, end) for start, end in row["answers"]),
        )
        for row in rows
        if row["use"] == use
    ]
    return sorted(trials, key=lambda trial: trial.number)
