"""Lower convex hulls and one price of a byte.

The whole segments that the relaxed optimum buys make a plan; what is left is spent greedily. The
plan loses at most one segment more than the relaxed optimum, which is also its bound. Several
byte limits get a price each, and a risk other than the mean gets weights on the samples.

Reference:
    Sinha and Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research, 1979.
    https://doi.org/10.1287/opre.27.3.503
"""

from dataclasses import dataclass
from typing import ClassVar

from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled.choose import choose_coupled
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import relax
from kvbudget.allocator.risk import CVaR, Mean, Risk, WorstSample
from kvbudget.allocator.rounding import fill
from kvbudget.allocator.solver import Choice, Solver
from kvbudget.allocator.terms import terms_of


@dataclass(frozen=True, slots=True)
class Hull(Solver):
    """Buy the segments of all hulls in the order of their worth, then fill what is left."""

    bounds_relaxation: ClassVar[bool] = True
    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset(
        {ByteLimit, WorstSample, CVaR}
    )

    def choose(self, problem: Problem) -> Choice:
        """Round the relaxed optimum down and fill."""
        if problem.risk != Mean() or terms_of(problem).limits:
            return choose_coupled(problem)
        relaxed = relax(problem)
        return Choice(fill(problem, relaxed.levels), bound=relaxed.bound)
