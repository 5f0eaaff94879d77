"""How much is kept, and who is run on the finer grid."""

from pathlib import Path
from statistics import fmean

from benchmarks.peers.journal import read_rows
from benchmarks.peers.trial import PeerTrial

SHARES = (0.05, 0.1, 0.25, 0.5)
GRID = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5)
GRID_PRESSES = 6
NEEDLES = "needles"


def grid_trials(trials: list[PeerTrial]) -> list[PeerTrial]:
    """The needle trials."""
    return [trial for trial in trials if trial.kind == NEEDLES]


def grid_contenders(folder: Path) -> list[str]:
    """Presses that free what they drop and find most needles over all shares together."""
    rows = [row for row in read_rows(folder / "kvpress.jsonl") if row["kind"] == NEEDLES]
    good = [row for row in rows if row["kept"] < 1 and "error" not in row]
    whole = next(row["held_bytes"] for row in rows if row["kept"] == 1)
    names = {row["name"] for row in good}
    freeing = names - {r["name"] for r in good if r["held_bytes"] > 1.02 * r["kept"] * whole}
    found = {name: fmean(_exact(good, name)) for name in freeing}
    return sorted(found, key=lambda name: (-found[name], name))[:GRID_PRESSES]


def _exact(rows: list[dict], name: str) -> list[int]:
    return [hit for row in rows if row["name"] == name for hit in row["exact"]]
