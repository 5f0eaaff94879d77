"""Contenders timed in turn: on a GPU as captured graphs, so that no launch is waited for.

Every contender is a list of calls over copies of the same data. Together they are larger than the
chip's cache, so that each call finds its data in memory, as a layer of a model does.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 15
CACHE_BYTES = 256 << 20
"""Data of this size fits no chip's cache."""


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one call in every round.

    Args:
        rounds: One figure per round.
        is_captured: Whether the calls could be captured as a CUDA graph.
    """

    rounds: tuple[float, ...]
    is_captured: bool

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    def ratio_to(self, other: Times) -> tuple[float, float, float]:
        """Quartiles of how many times longer this takes, round by round."""
        ratios = [mine / its for mine, its in zip(self.rounds, other.rounds, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return low, middle, high


def copies_needed(nbytes: int) -> int:
    """How many copies of so many bytes no cache can hold."""
    return max(1, min(32, -(-CACHE_BYTES // max(1, nbytes))))


def race(
    contenders: dict[str, Sequence[Callable[[], object]]],
    device: torch.device,
    rounds: int = ROUNDS,
) -> dict[str, Times]:
    """Time everybody in turn, round by round.

    Args:
        contenders: Calls of each, all doing the same.
        device: Where they run.
        rounds: How often everybody runs, at least twice.
    """
    runs = {name: _prepared(calls, device) for name, calls in contenders.items()}
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (run, _) in runs.items():
            took = _milliseconds(run, device)
            found[name].append(took / len(contenders[name]))
    return {name: Times(tuple(found[name]), runs[name][1]) for name in contenders}


def _prepared(
    calls: Sequence[Callable[[], object]], device: torch.device
) -> tuple[Callable[[], object], bool]:
    """All calls as one, warmed up, and whether they were captured."""

    def everything() -> None:
        for call in calls:
            call()

    everything()
    if device.type != "cuda":
        return everything, False
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            everything()
    except RuntimeError:
        # what waits for the device cannot be captured; its time then holds the waiting
        torch.cuda.synchronize()
        return everything, False
    graph.replay()
    return graph.replay, True


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e3
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    run()
    end_event.record()
    end_event.synchronize()
    return float(start_event.elapsed_time(end_event))
