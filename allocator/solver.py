"""What a solver is, and what it hands back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from .arrays import Ints
from .constraint import Constraint
from .problem import Problem
from .risk import Risk
from .status import Status

CLOSED = 1e-12
"""Relative gap below which loss and bound are equal but for rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The answer of a solver.

    Args:
        levels: Chosen level of each unit, int64 [units].
        status: How the search ended. A solver that has proved its answer optimal says so by
            returning its loss as the bound.
        bound: Proven lower limit on the loss of every choice within the budget.
    """

    levels: Ints
    status: Status = Status.FEASIBLE
    bound: float = float("-inf")


class Solver(ABC):
    """A way to choose levels. Every solver works with default arguments.

    A solver whose bound already is that of the relaxed problem (the convex hulls, and a price for
    each limit it honours) sets ``bounds_relaxation``, so that the caller need not compute it
    again. One that can do more than the plain problem names the classes of coupling constraints
    and of risks in ``honours``; it reads them from ``terms_of(problem)`` and ``problem.risk``.
    Everything else that a problem may ask for is worked into the menus before ``choose`` is
    called.
    """

    __slots__ = ()

    bounds_relaxation: ClassVar[bool] = False
    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset()

    @abstractmethod
    def choose(self, problem: Problem) -> Choice:
        """Choose one level per unit so that their bytes fit the budget.

        The caller has checked that the lowest levels fit, and checks the answer. Equal problems
        must get equal answers. Only where a problem limits the number of capacities or has a
        custom constraint may the answer have the status ``INFEASIBLE``.

        Args:
            problem: The knapsack to solve; its losses are finite.
        """
