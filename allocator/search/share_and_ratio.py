"""Two numbers: how many caches are shrunk, and to what part of an equal share.

The families that BaKlaVa searches are not public; this one is a reconstruction from its summary.

Reference:
    Gulhan, Chitty-Venkata, Emani, Kandemir and Vishwanath, "BaKlaVa: Budgeted Allocation of KV
    cache for Long-context Inference", 2025. https://arxiv.org/abs/2502.13176
"""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.checks import check_count
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.token_bytes import token_sizes

from .dimension import Dimension, Real
from .parameters import Parameters
from .targets import levels_near, shared_bytes


@dataclass(frozen=True, slots=True)
class ShareAndRatio(Parameters):
    """Shrink the least important caches and hand the bytes to the others by importance.

    Importance is the loss that memory can remove: that of the lowest level less that of the
    highest. A share of the units with the least gets a ratio of an equal part of the budget; what
    is freed goes to the rest in proportion to importance. Bytes that no level uses are spent
    where they remove most loss.

    Args:
        steps: Values of each number in the grid that finds the start nearest to ``Hull``.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If there are no steps.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        """Check the grid."""
        check_count("steps", self.steps)

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """The share of units that is shrunk, and the ratio they are shrunk to."""
        return Real("share", 0.0, 1.0), Real("ratio", 0.0, 1.0)

    def starts(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """The corner of the grid with the least predicted loss, and equal parts for all."""
        marks = (np.arange(self.steps) / self.steps).tolist()
        grid = [(share, ratio) for share in marks for ratio in marks]
        losses = [problem.total_loss(self.levels(problem, np.array(point))) for point in grid]
        return grid[int(np.argmin(losses))], (0.0, 1.0)

    def levels(self, problem: Problem, values: Floats) -> Ints:
        """Divide the budget and round."""
        share, ratio = values.tolist()
        importance = problem.loss[:, 0] - problem.loss[:, -1]
        units = len(importance)
        shrunk = np.zeros(units, dtype=bool)
        shrunk[np.argsort(importance, kind="stable")[: round(share * units)]] = True
        sizes = np.array(token_sizes(problem), dtype=np.float64)
        equal = problem.budget_bytes / units
        target = np.where(shrunk, ratio * equal, equal) * sizes
        if not shrunk.all():
            freed = int((1 - ratio) * equal * sizes[shrunk].sum())
            target[~shrunk] += shared_bytes(freed, (importance * sizes)[~shrunk])
        return levels_near(problem, target)
