"""Anything else that a convex model can say."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.terms import ShareFunction, Terms

if TYPE_CHECKING:
    from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True)
class Custom(Constraint):
    """Conditions on the choice, written with cvxpy.

    The function gets an expression ``share`` of shape [units, levels], 1 at the level that a unit
    takes and 0 elsewhere (between the two in a linear relaxation), and returns a list of cvxpy
    constraints. They must be linear, or convex and piecewise linear, as sums of ``cp.abs`` and
    ``cp.maximum`` are. For example, at least half of the units at their top level::

        Custom(lambda share: [cp.sum(share[:, -1]) >= share.shape[0] / 2])

    Args:
        function: From the expression to constraints.

    Raises:
        TypeError: If it cannot be called.
    """

    couples: ClassVar[bool] = True

    function: ShareFunction

    def __post_init__(self) -> None:
        """Check that it can be called."""
        if not callable(self.function):
            raise TypeError(f"`function` must be a function, but got {self.function!r:.60}.")

    def terms(self, problem: "Problem") -> Terms:
        """The function itself."""
        return Terms(custom=(self.function,))
