"""One result, one JSON line: what was measured, on what, and at which commit."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Args:
        case: What was measured, as one readable line.
        metric: Which figure of it.
        value: The figure.
        unit: Its unit.
        seed: Seed of everything random.
    """

    case: str
    metric: str
    value: float
    unit: str
    seed: int


def machine() -> str:
    """Processor, cores in use, and torch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{platform.machine()} {device}, {threads}, torch {torch.__version__}"


def commit() -> str:
    """Commit of the working tree, `unknown` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write all rows with machine and commit, to a temporary file that is then renamed."""
    about = {"machine": machine(), "commit": commit()}
    lines = [json.dumps({**asdict(row), **about}) + "\n" for row in rows]
    unfinished = path.with_suffix(path.suffix + ".part")
    unfinished.write_text("".join(lines))
    unfinished.replace(path)


def report(rows: Iterable[Row], json_file: Path | None) -> None:
    """Print one line per figure as it comes, and write all of them at the end if asked to."""
    print(machine())
    found = []
    for row in rows:
        print(f"{row.case}: {row.metric} {row.value:.4g} {row.unit}", flush=True)
        found.append(row)
    if json_file is not None:
        write_rows(json_file, found)
