"""Outcomes in a file that is written to as they come, so that a stopped run goes on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.rows import commit, machine
from kvbudget.allocator.arrays import Floats

from .arms import Outcome

FULL = "full cache"


@dataclass(frozen=True, slots=True)
class Record:
    """All outcomes of one arm on one kind of prompts.

    Args:
        arm: Its name.
        kind: Kind of prompts.
        seeds: Seed of each prompt.
        outcomes: Outcome of each prompt.
    """

    arm: str
    kind: str
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def divergence(self) -> Floats:
        """Nats per token, [prompts]."""
        return np.array([each.divergence for each in self.outcomes])

    @property
    def right(self) -> Floats:
        """Questions answered exactly, [prompts]."""
        return np.array([float(each.right) for each in self.outcomes])

    @property
    def asked(self) -> Floats:
        """Questions, [prompts]."""
        return np.array([float(each.asked) for each in self.outcomes])

    @property
    def held(self) -> float:
        """Most bytes held over those of the whole context, of all prompts."""
        return max(each.held for each in self.outcomes)


def about() -> dict[str, str]:
    """Machine, commit and versions of a run."""
    versions = {name: version(name) for name in ("kvbudget", "torch", "transformers")}
    return {"machine": machine(), "commit": commit(), **versions}


def append(file: Path, record: Record, run: dict[str, str]) -> None:
    """Add a line, one JSON object."""
    columns = {
        name: [round(getattr(each, name), 7) for each in record.outcomes]
        for name in asdict(record.outcomes[0])
    }
    line = {"arm": record.arm, "kind": record.kind, "seed": list(record.seeds), **columns, **run}
    broken = file.is_file() and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" * broken + json.dumps(line) + "\n")


def read_lines(file: Path) -> list[dict[str, object]]:
    """Every whole line of a file; a run that was killed may have left half of one."""
    if not file.is_file():
        return []
    # a line has one closing brace, its last character, so half of one has none
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def read_records(file: Path) -> dict[tuple[str, str], Record]:
    """Every record of a file, by arm and kind."""
    found = [_record(line) for line in read_lines(file)]
    return {(record.arm, record.kind): record for record in found}


def _record(line: dict) -> Record:  # type: ignore[type-arg]
    columns: Sequence[tuple[float, int, int, float]] = list(
        zip(line["divergence"], line["right"], line["asked"], line["held"], strict=True)
    )
    outcomes = tuple(Outcome(*each) for each in columns)
    return Record(line["arm"], line["kind"], tuple(line["seed"]), outcomes)
