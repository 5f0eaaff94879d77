"""The linear relaxation, solved by HiGHS through cvxpy.

Units may mix levels. The dual value of the budget is a price of a byte, and a price proves a
bound. A constraint that hulls and one price cannot express needs one more line here.

Reference:
    Huangfu and Hall, "Parallelizing the dual revised simplex method", Mathematical Programming
    Computation, 2018. https://doi.org/10.1007/s12532-017-0130-5
    Diamond and Boyd, "CVXPY: A Python-Embedded Modeling Language for Convex Optimization",
    Journal of Machine Learning Research, 2016. https://jmlr.org/papers/v17/15-408.html
"""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import lagrangian_bound
from kvbudget.allocator.rounding import fill, shrink
from kvbudget.allocator.solver import Choice, Solver
from kvbudget.allocator.status import Status

STATUSES = {
    "optimal": Status.FEASIBLE,
    "optimal_inaccurate": Status.FEASIBLE,
    "user_limit": Status.LIMIT_REACHED,
}
"""What cvxpy's status says about the rounded plan; the optimum is that of the relaxation."""


@dataclass(frozen=True, slots=True)
class LinearProgram(Solver):
    """Let units mix levels, solve the linear program, round down, and fill what is left.

    Args:
        tolerance: Share above which a level counts as in use.
    """

    tolerance: float = 1e-9

    def choose(self, problem: Problem) -> Choice:
        """Round the shares of the linear program down and fill.

        Raises:
            RuntimeError: If the linear program ends without a solution.
        """
        status, share, price = solve_relaxation(problem)
        # levels are sorted by cost, so the first one in use never exceeds the mix
        levels = (share > self.tolerance).argmax(axis=1)
        bound = lagrangian_bound(problem, price, levels)
        return Choice(fill(problem, shrink(problem, levels)), status, bound)


def solve_relaxation(problem: Problem) -> tuple[Status, Floats, float]:
    """Return how the linear program ended, the shares [units, levels] and the price of a byte.

    Raises:
        RuntimeError: If it ends without a solution, which an honest problem always has.
    """
    import cvxpy as cp

    bytes_scale = max(problem.budget_bytes, 1)
    loss_scale = float(np.ptp(problem.loss)) or 1.0
    share = cp.Variable(problem.loss.shape, nonneg=True)  # [units, levels]
    spent = cp.sum(cp.multiply(problem.cost_bytes / bytes_scale, share))
    budget = spent <= problem.budget_bytes / bytes_scale
    program = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(problem.loss / loss_scale, share))),
        [cp.sum(share, axis=1) == 1, budget],
    )
    program.solve(solver=cp.HIGHS)
    if program.status not in STATUSES or share.value is None:
        raise RuntimeError(f"HiGHS ended the linear program as {program.status}.")
    price = max(float(budget.dual_value), 0.0) * loss_scale / bytes_scale
    return STATUSES[program.status], share.value, price
