"""What a constraint is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from .terms import Terms

if TYPE_CHECKING:
    from .problem import Problem


class Constraint(ABC):
    """A limit on the choice of levels beside the budget.

    One that ``couples`` units cannot be worked into their menus: a solver must say that it
    honours its class. All others hold with every solver.
    """

    __slots__ = ()

    couples: ClassVar[bool] = False

    @abstractmethod
    def terms(self, problem: "Problem") -> Terms:
        """What the constraint demands of a problem.

        Args:
            problem: The problem it belongs to, without regard to its other constraints.

        Raises:
            ValueError: If it makes no sense there.
        """


def coupling_kinds(constraints: Iterable[Constraint]) -> set[type[Constraint]]:
    """Classes of those constraints that a solver must honour by itself."""
    return {type(constraint) for constraint in constraints if constraint.couples}
