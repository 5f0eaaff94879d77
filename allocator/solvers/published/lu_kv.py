"""The curves made convex by isotonic regression, then bought by marginal gain.

Reference: Tang et al., 2026. https://arxiv.org/abs/2602.08585
"""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.curves import useful_levels
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.solver import Choice, Solver
from kvbudget.allocator.terms import Bools


@dataclass(frozen=True, slots=True)
class LUKV(Solver):
    """Buy the steps of all convex curves by gain per byte.

    The loss that each step removes per byte is replaced by its isotonic regression: the nearest
    numbers that never rise from step to step, bytes counting as weights,

        minimise    sum_i bytes[i] * (worth[i] - gain[i] / bytes[i]) ** 2
        subject to  worth[i + 1] <= worth[i]

    Then steps are bought, always the one with the largest ``worth``, ties to the lower unit. A
    step that does not fit ends its unit. The replaced curve is the lower convex hull, so up to its
    last corner this buys what ``Hull`` buys; inside a segment it goes step by step instead of
    rounding down.

    The signal is the problem's loss, and there is no importance to pass. The original's loss is
    the future attention, times the projected values, that a ranking of tokens loses over a long
    horizon, averaged over contexts. This is a reconstruction after the abstract and another
    implementation; the authors' code was not read.

    Reference:
        Tang et al., "Predicting Future Utility: Global Combinatorial Optimization for Task-Agnostic
        KV Cache Eviction", 2026. https://arxiv.org/abs/2602.08585
    """

    def choose(self, problem: Problem) -> Choice:
        """Buy from the best step on; a unit whose step does not fit is done."""
        useful = useful_levels(problem.cost_bytes, problem.loss)
        levels: Ints = useful.argmax(axis=1)
        steps = useful & (np.arange(useful.shape[1]) > levels[:, None])
        worth = convex_worth(problem, useful)
        unit, level = np.nonzero(steps)
        order = np.lexsort((level, unit, -worth[unit, level]))
        left = problem.budget_bytes - problem.floor_bytes
        for u, to in zip(unit[order].tolist(), level[order].tolist(), strict=True):
            price = int(problem.cost_bytes[u, to] - problem.cost_bytes[u, levels[u]])
            # no later step of a unit is cheaper than one that it could not pay
            if price <= left:
                left -= price
                levels[u] = to
        return Choice(levels)


def convex_worth(problem: Problem, useful: Bools) -> Floats:
    """Loss removed per byte by the step to each useful level, made never rising, [units, levels].

    0 where there is no step: at levels that are not useful and at the first useful one.

    Args:
        problem: The knapsack.
        useful: Levels that lose less than every cheaper one, [units, levels].
    """
    from scipy.optimize import isotonic_regression

    worth = np.zeros(problem.loss.shape)
    for unit, row in enumerate(useful):
        level = np.flatnonzero(row)
        if level.size > 1:
            price = np.diff(problem.cost_bytes[unit, level]).astype(np.float64)
            gain = -np.diff(problem.loss[unit, level]) / price
            worth[unit, level[1:]] = isotonic_regression(gain, weights=price, increasing=False).x
    return worth
