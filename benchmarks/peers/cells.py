"""What is kept of a run: one JSON row for each contender, share and kind of prompt."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.peers.attempt import COST, FULL_CACHE
from benchmarks.peers.journal import read_rows
from benchmarks.rows import commit, machine

KVPRESS, OURS, CHOOSING = "kvpress", "kvbudget", "choosing"
JOURNALS = {KVPRESS: "kvpress.jsonl", OURS: "kvbudget.jsonl", CHOOSING: "chosen_on.jsonl"}
FIRST_SEED = 30_000


@dataclass(frozen=True, slots=True)
class Cell:
    """Figures of one contender at one share on the prompts of one kind.

    Args:
        side: Which library ran; ``choosing`` for the prompts that plans are chosen on.
        name: The contender.
        kept: Share of the cache that was asked for.
        kind: Kind of the prompts.
        divergence: Divergence from the full cache for each prompt, nats per token.
        loss: Mean loss of the true next token, nats per token; None where nothing ran.
        exact: Exact answers.
        answers: Questions.
        held_share: Most bytes held behind a context, over those of the full cache.
        used_share: The same without what is masked.
        block: Fewest tokens that had to be read at a time.
        errors: What went wrong, and how often.
    """

    side: str
    name: str
    kept: float
    kind: str
    divergence: tuple[float, ...]
    loss: float | None
    exact: int
    answers: int
    held_share: float
    used_share: float
    block: int
    errors: dict[str, int]

    @property
    def mean(self) -> float:
        """Mean divergence over the prompts, nats per token."""
        return fmean(self.divergence) if self.divergence else float("nan")


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and memory of one contender, over those of the full cache in the same process.

    Args:
        side: Which library ran.
        name: The contender.
        kept: Share of the cache that was asked for.
        prefill_ratio: Time of reading and cutting a context.
        token_ratio: Time of each further token, read one by one.
        peak_ratio: Most bytes alive at once while the context is read.
        alive_ratio: Bytes of all tensors that are alive because of it afterwards.
    """

    side: str
    name: str
    kept: float
    prefill_ratio: float
    token_ratio: float
    peak_ratio: float
    alive_ratio: float


def summarise(folder: Path, first: int = 1000) -> tuple[list[Cell], list[Cost]]:
    """Cells of the first so many prompts of each kind, and costs, in the journals of a run."""
    cells, costs = [], []
    for side, name in JOURNALS.items():
        rows = [row for row in read_rows(folder / name) if row["number"] < first]
        cells += list(_cells(side, [row for row in rows if row["kind"] != COST]))
        costs += list(_costs(side, [row for row in rows if row["kind"] == COST]))
    return cells, costs


def _cells(side: str, rows: list[dict[str, Any]]) -> Iterable[Cell]:
    full = [row for row in rows if row["name"] == FULL_CACHE]
    grouped: dict[tuple[str, float, str], list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["number"]):
        grouped[row["name"], row["kept"], row["kind"]].append(row)
    for (name, kept, kind), found in grouped.items():
        yield _cell(side, name, kept, kind, found, full)


def _cell(
    side: str, name: str, kept: float, kind: str, rows: list[dict[str, Any]], full: list[Any]
) -> Cell:
    good = [row for row in rows if "error" not in row]
    errors: dict[str, int] = defaultdict(int)
    for row in rows:
        if "error" in row:
            errors[row["error"]] += 1
    whole = full[0]["held_bytes"]
    exact = [hit for row in good for hit in row["exact"]]
    return Cell(
        side,
        name,
        kept,
        kind,
        tuple(round(row["divergence"], 7) for row in good),
        round(fmean(row["loss"] for row in good), 5) if good else None,
        sum(exact),
        len(exact),
        round(max((row["held_bytes"] for row in good), default=0) / whole, 5),
        round(max((row["used_bytes"] for row in good), default=0) / whole, 5),
        min((row["block"] for row in good), default=0),
        dict(errors),
    )


def _costs(side: str, rows: list[dict[str, Any]]) -> Iterable[Cost]:
    fields = ("prefill_s", "token_s", "peak_bytes", "alive_bytes")
    full = next((row for row in rows if row["name"] == FULL_CACHE), None)
    for row in rows:
        if full and row is not full:
            ratios = [round(row[field] / full[field], 3) for field in fields]
            yield Cost(side, row["name"], row["kept"], *ratios)


def write_cells(
    path: Path, cells: Iterable[Cell], costs: Iterable[Cost], peers: dict[str, str]
) -> None:
    """Write all rows with machine, commit, seed and versions, then rename the file."""
    ours = {name: version(name) for name in ("kvbudget", "torch", "transformers")}
    about = {
        "seed": FIRST_SEED,
        "machine": machine(),
        "commit": commit(),
    }
    rows = [
        {**asdict(each), **about, "versions": peers if each.side == KVPRESS else ours}
        for each in (*cells, *costs)
    ]
    unfinished = path.with_suffix(".part")
    unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows))
    unfinished.replace(path)


def read_cells(path: Path) -> tuple[list[Cell], list[Cost]]:
    """Read what `write_cells` wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    cells = [
        Cell(**{each: _frozen(row[each]) for each in Cell.__dataclass_fields__})
        for row in rows
        if "kind" in row
    ]
    costs = [
        Cost(**{each: row[each] for each in Cost.__dataclass_fields__})
        for row in rows
        if "kind" not in row
    ]
    return cells, costs


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
