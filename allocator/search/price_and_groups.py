"""One factor on the loss of each group of layers; the price of a byte follows from the budget."""

from dataclasses import dataclass, replace

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.checks import check_count, check_number
from kvbudget.allocator.layers import layer_of_units
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.risk import Mean

from .dimension import Dimension, Real
from .parameters import Parameters
from .targets import hull_levels


@dataclass(frozen=True, slots=True)
class PriceAndGroups(Parameters):
    """Multiply the losses of each group of layers by a factor, then solve as ``Hull`` does.

    Predicted losses are least wrong inside a layer and most between the ends of a model: errors
    of early layers pass through all others. The factors correct that. With all factors 1 the
    plan is that of ``Hull``.

    Args:
        groups: Number of groups of neighbouring layers; at most one per layer is used.
        most_factor: Greatest factor; its inverse is the least.

    Raises:
        TypeError: If a field is not a number.
        ValueError: If there are no groups or the greatest factor is not above 1.

    Reference:
        Original.
    """

    groups: int = 4
    most_factor: float = 8.0

    def __post_init__(self) -> None:
        """Check both fields."""
        check_count("groups", self.groups)
        check_factor("most_factor", self.most_factor)

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """One factor per group."""
        factor = self.most_factor
        count = min(self.groups, problem.shape[0])
        return tuple(
            Real(f"factor {group}", 1 / factor, factor, log=True) for group in range(count)
        )

    def starts(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """All factors 1: exactly the plan of ``Hull``."""
        return ((1.0,) * min(self.groups, problem.shape[0]),)

    def levels(self, problem: Problem, values: Floats) -> Ints:
        """Solve with the weighted losses."""
        group = layer_of_units(problem) * len(values) // problem.shape[0]
        # at most 1, so that no loss leaves the range that a problem allows
        weight = (values / values.max())[group]
        weighted = problem.loss * weight[:, None]
        return hull_levels(replace(problem, loss=weighted, sample_loss=None, risk=Mean()))


def check_factor(name: str, value: float) -> None:
    """Refuse a greatest factor that leaves nothing to search.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not above 1.
    """
    if check_number(name, value) <= 1:
        raise ValueError(f"`{name}` must be above 1, but got {name}={value}.")
