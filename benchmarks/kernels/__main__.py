"""Check, then time, all kernels on this machine's GPU, in one call of under ten minutes.

    benchmarks/kernels/run results.json

Holds every kernel to its reference on the device, measures the copy bandwidth of the memory, and
then, as ratios within one run: a decoded token against scaled dot product attention (flash, cuDNN
and torch's own choice) and flex attention over the full and over a padded cache; the eviction of a
prompt against reading it; a whole decode step of a Llama, eager and compiled. Needs numpy, scipy,
torch, triton, transformers and pytest, nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.rows import commit

from . import checks, decode, eviction, machine
from .case import Case, cases
from .clock import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 570.0
"""A call that may take ten minutes has to be through by then."""


def decode_rows(device: torch.device, is_small: bool, copy: float) -> Iterator[dict[str, Any]]:
    """One row for every case: error, share of the bandwidth, and ratios to the others."""
    for case in cases(is_small):
        if not _fits(case, device):
            yield {"case": str(case), "skipped": "not enough memory"}
            continue
        error = decode.checked_error(case, device) if case.context_tokens <= 32768 else None
        # flex attention compiles for every shape
        with_flex = is_small or (case.batch == 8 and case.group == 4 and case.kept < 1)
        times = decode.times(case, device, with_flex, 3 if is_small else ROUNDS)
        ours = times.pop("ragged")
        seconds = ours.median / 1e3
        yield {
            "case": str(case),
            "relative_error": error,
            "ragged_ms": ours.median,
            "captured": ours.is_captured,
            "share_of_copy_bandwidth": decode.kept_bytes(case) / seconds / copy,
            "time_over": {name: ours.ratio_to(other) for name, other in times.items()},
        }
        _forget(device)


def eviction_rows(device: torch.device, is_small: bool) -> Iterator[dict[str, Any]]:
    """One row for every prompt: each step of its eviction as a share of its prefill."""
    for case in eviction.prompts(is_small):
        times = eviction.times(case, device, 3 if is_small else ROUNDS)
        prefill = times.pop("prefill of the layer")
        yield {
            "case": str(case),
            "prefill_of_one_layer_ms": prefill.median,
            "share_of_prefill": {name: each.ratio_to(prefill) for name, each in times.items()},
            "captured": {name: each.is_captured for name, each in times.items()},
        }
        _forget(device)


def step_rows(device: torch.device, is_small: bool) -> Iterator[dict[str, Any]]:
    """One row for every batch: whole steps of a model."""
    # here, because a transformers that the runtime does not know must not stop the rest
    from . import steps

    extent, chosen = steps.Extent(), [Case(32768, n, 4, 0.25, is_even=False) for n in (1, 8)]
    if is_small:
        extent = steps.Extent(layers=2, vocabulary=64, tokens=4, rounds=2)
        chosen = [Case(300, 2, 1, 0.5, is_even=False, dtype=torch.float32)]
    for case in chosen:
        times = steps.times(case, extent, device)
        yield {
            "case": f"{case}, {extent.layers} layers",
            "ms_per_token": {name: each.median / extent.tokens for name, each in times.items()},
            "time_over": {
                f"{ours} over {other}": times[ours].ratio_to(times[other])
                for ours, other in steps.PAIRS
            },
        }
        _forget(device)


class Findings:
    """What was found so far, on disk after every row.

    Args:
        path: JSON file.
        device: Where all of it runs.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self.failed = False
        self._found: dict[str, Any] = {"machine": machine.about(device), "commit": commit()}

    def note(self, name: str, value: object) -> None:
        """Keep one thing, and print it."""
        self._found[name] = value
        self._write(name, value)

    def note_rows(self, name: str, rows: Iterator[dict[str, Any]], deadline: float) -> None:
        """Keep rows until the time is over; what fails is kept as such, and the rest goes on."""
        found: list[dict[str, Any]] = []
        self._found[name] = found
        try:
            while time.monotonic() < deadline:
                row = next(rows, None)
                if row is None:
                    return
                found.append(row)
                self._write(name, row)
            found.append({"stopped": "out of time"})
            self._write(name, found[-1])
        except Exception as error:
            self.failed = True
            found.append({"failed": f"{type(error).__name__}: {error}"})
            self._write(name, found[-1])

    def _write(self, name: str, value: object) -> None:
        print(name, json.dumps(value), flush=True)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(self._found, indent=1) + "\n")
        unfinished.replace(self._path)


def measure(chosen: argparse.Namespace) -> bool:
    """Everything, as far as the time goes; returns whether nothing failed."""
    device, deadline = torch.device(chosen.device), time.monotonic() + chosen.seconds
    findings = Findings(chosen.output, device)
    if device.type == "cuda":
        for name, check in {"tests": checks.run_tests, "sanitizer": checks.run_sanitizer}.items():
            result = check(120.0)
            findings.failed |= result is not None and not result["passed"]
            findings.note(name, result)
    copy = machine.copy_bandwidth(device, 1 << 20 if chosen.small else machine.BLOCK_BYTES)
    findings.note("copy_bytes_per_second", copy)
    findings.note_rows("eviction", eviction_rows(device, chosen.small), deadline)
    findings.note_rows("decode", decode_rows(device, chosen.small, copy), deadline)
    findings.note_rows("steps", step_rows(device, chosen.small), deadline)
    return not findings.failed


def _fits(case: Case, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    rectangle = case.batch * 8 * case.context_tokens * case.bytes_per_token
    return 3 * rectangle < torch.cuda.mem_get_info(device)[0]


def _forget(device: torch.device) -> None:
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny cases, to try the program")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device, but torch sees none.")
    if not measure(chosen):
        sys.exit(f"Something failed; {chosen.output} says what.")


if __name__ == "__main__":
    with torch.no_grad():
        main()
