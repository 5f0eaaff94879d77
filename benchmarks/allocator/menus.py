"""Random problems for the benchmarks of solvers."""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator import Problem

MOST_STEP_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Size:
    """How large a problem is.

    Args:
        units: Caches.
        levels: Levels of each.
    """

    units: int
    levels: int

    def __str__(self) -> str:
        return f"{self.units:,} caches x {self.levels} levels"


def random_menu(size: Size, seed: int, share: float = 0.3) -> Problem:
    """Irregular costs, losses that are no convex curves, and a share of the range to spend."""
    rng = np.random.default_rng(seed)
    shape = size.units, size.levels
    cost = np.cumsum(rng.integers(1, MOST_STEP_BYTES + 1, shape), axis=1)
    loss = np.sort(rng.exponential(size=shape), axis=1)[:, ::-1]
    floor, ceiling = int(cost[:, 0].sum()), int(cost[:, -1].sum())
    return Problem(loss, cost, floor + int(share * (ceiling - floor)))
