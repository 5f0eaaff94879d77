"""The whole problem as a mixed-integer program, solved by HiGHS through cvxpy.

It is slow beside the other solvers and knows no constraint that it could not honour.

Reference:
    Kellerer, Pferschy and Pisinger, "Knapsack Problems", Springer, 2004, chapter 11, for the
    program. https://doi.org/10.1007/978-3-540-24777-7
    Huangfu and Hall, "Parallelizing the dual revised simplex method", Mathematical Programming
    Computation, 2018, for HiGHS. https://doi.org/10.1007/s12532-017-0130-5
"""

from dataclasses import dataclass
from typing import ClassVar

from kvbudget.allocator.checks import check_number
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import ByteLimit, Custom, MostCapacities
from kvbudget.allocator.coupled.whole_model import choose_whole
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.risk import CVaR, Risk, WorstSample
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class MixedInteger(Solver):
    """Let HiGHS branch and bound until nothing better is left or the time is up.

    Its proof holds within the tolerances of HiGHS, about one part in a million of the distance
    between the first plan and its bound; the bound allows for that, so the gap is seldom quite 0.

    Args:
        seconds: Time for the search. Where no plan is known by then it goes on to the first one.
        gap: Relative gap at which the search may stop.

    Raises:
        TypeError: If a field is not a number.
        ValueError: If ``seconds`` is not above 0 or ``gap`` is below 0.
    """

    bounds_relaxation: ClassVar[bool] = True
    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset(
        {ByteLimit, MostCapacities, Custom, WorstSample, CVaR}
    )

    seconds: float = 60.0
    gap: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        if check_number("seconds", self.seconds) <= 0:
            raise ValueError(f"`seconds` must be above 0, but got seconds={self.seconds}.")
        if check_number("gap", self.gap) < 0:
            raise ValueError(f"`gap` must be at least 0, but got gap={self.gap}.")

    def choose(self, problem: Problem) -> Choice:
        """Search, check what HiGHS found, and lower its bound by what its tolerances hide."""
        return choose_whole(problem, seconds=self.seconds, gap=self.gap)
