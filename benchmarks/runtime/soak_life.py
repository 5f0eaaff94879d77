"""What one life of the soak is, what is noted of it, and the plans that it is led with."""

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from benchmarks.runtime.soak_branch import Worst
from benchmarks.runtime.soak_dense import LONGEST
from benchmarks.runtime.soak_held import SoakFault
from kvbudget.allocator import Certificate, Geometry, Plan
from kvbudget.heuristics import HeavyHitter, ObservationWindow, SinkRecent, TokenHeuristic

HEURISTICS: tuple[TokenHeuristic, ...] = (
    ObservationWindow(window=8, kernel=3),
    HeavyHitter(),
    SinkRecent(),
)
ROWS = (1, 3)
LONGEST_TURN, REMEMBERED = 60, 20
CONTEXT = LONGEST - LONGEST_TURN


@dataclass(slots=True)
class Life:
    """What happened in one life.

    Args:
        seed: Seed of the soak.
        number: Which life of the soak; it decides rows and heuristic.
        steps: Tokens decoded one at a time.
        worst: Figures of all comparisons.
        counts: How often each operation was done.
        last: The last operations.
    """

    seed: int
    number: int
    steps: int = 0
    worst: Worst = field(default_factory=Worst)
    counts: Counter[str] = field(default_factory=Counter)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def rows(self) -> int:
        """Sequences that the plans are made for."""
        return ROWS[self.number % len(ROWS)]

    @property
    def heuristic(self) -> TokenHeuristic:
        """What chooses the tokens."""
        return HEURISTICS[self.number // len(ROWS) % len(HEURISTICS)]

    def note(self, operation: str, details: str = "") -> None:
        """Count an operation, and remember it."""
        self.counts[operation] += 1
        self.last.append(f"step {self.steps}: {operation} {details}".rstrip())

    def fault(self, error: Exception) -> SoakFault:
        """The error with all that is needed to see it again."""
        again = f"--seed {self.seed} --life {self.number} --until {self.steps + 1}"
        story = "\n  ".join(self.last)
        return SoakFault(
            f"{type(error).__name__}: {error}\n{self.heuristic}, {self.rows} row(s); "
            f"again with {again}; the last operations:\n  {story}"
        )


def random_plans(geometry: Geometry, rows: int, random: np.random.Generator) -> list[Plan]:
    """Plans of very different size, some with bytes to spare."""
    reach = np.array([window or CONTEXT for window in geometry.windows])[:, None]
    plans = []
    for most in (10, 25, 60, 120, 250, CONTEXT):
        drawn = random.integers(max(2, most // 8), most + 1, (geometry.layers, geometry.kv_heads))
        capacity = np.minimum(drawn, reach)
        needed = int(capacity.sum()) * geometry.bytes_per_token * rows
        spare = int(random.integers(0, needed // 4)) if random.random() < 0.5 else 0
        plans.append(_plan(geometry, capacity, rows, needed + spare))
    return plans


def _plan(geometry: Geometry, capacity: np.ndarray, rows: int, budget_bytes: int) -> Plan:
    return Plan(
        capacity_tokens=capacity,
        context_tokens=CONTEXT,
        batch_size=rows,
        budget_bytes=budget_bytes,
        certificate=Certificate("by hand", "FEASIBLE", 0.0, 0.0, 0.0),
        geometry=geometry,
        model="random",
        heuristic="sink_recent",
        heuristic_settings=(),
        measure="none",
    )
