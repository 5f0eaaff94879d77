"""The linear relaxation, solved by HiGHS through cvxpy.

Units may mix levels. The dual values are a price of a byte for each limit and a weight of each
sample, and these prove a bound. The mixed levels are then rounded to a plan.

Reference:
    Huangfu and Hall, "Parallelizing the dual revised simplex method", Mathematical Programming
    Computation, 2018. https://doi.org/10.1007/s12532-017-0130-5
    Diamond and Boyd, "CVXPY: A Python-Embedded Modeling Language for Convex Optimization",
    Journal of Machine Learning Research, 2016. https://jmlr.org/papers/v17/15-408.html
"""

from dataclasses import dataclass
from typing import ClassVar

from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import ByteLimit, Custom, MostCapacities
from kvbudget.allocator.coupled.relaxed_model import choose_relaxed
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.risk import CVaR, Risk, WorstSample
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class LinearProgram(Solver):
    """Let units mix levels, solve the linear program, round, and fill what is left.

    Where no rounding honours a custom constraint, the mixed-integer program decides: first on the
    levels near the mix, then on all.

    Args:
        tolerance: Share above which a level counts as in use.
        seconds: Time for the mixed-integer program, where it has to decide.
    """

    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset(
        {ByteLimit, MostCapacities, Custom, WorstSample, CVaR}
    )

    tolerance: float = 1e-9
    seconds: float = 60.0

    def choose(self, problem: Problem) -> Choice:
        """Round the shares of the linear program, within every limit.

        Raises:
            RuntimeError: If the linear program ends without a solution.
        """
        return choose_relaxed(problem, tolerance=self.tolerance, seconds=self.seconds)
