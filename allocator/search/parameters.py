"""What a few searched numbers mean for the levels of many units."""

from abc import ABC, abstractmethod

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.problem import Problem

from .dimension import Dimension


class Parameters(ABC):
    """A family of choices described by a few numbers.

    A search over every unit's level needs far more trials than a measurement of a model allows,
    so it runs over these numbers instead.
    """

    __slots__ = ()

    @abstractmethod
    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """The numbers to search for a problem, with distinct names."""

    @abstractmethod
    def starts(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """Values worth trying first, one per dimension each.

        The first ones give the plan of ``Hull``, or what comes nearest to it.
        """

    @abstractmethod
    def levels(self, problem: Problem, values: Floats) -> Ints:
        """Levels that the numbers stand for, int64 [units].

        They should fit the budget; where they do not, nothing is measured.

        Args:
            problem: A problem whose lowest levels fit the budget.
            values: One number per dimension, [dimensions].
        """
