"""Few different sizes: as many kernels, pools or graphs as a deployment can keep."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kvbudget.allocator.checks import check_count
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.terms import Distinct, Terms

if TYPE_CHECKING:
    from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True)
class MostCapacities(Constraint):
    """At most so many different capacities among all caches.

    Caches with the same number of tokens share a capacity; where a problem was made from arrays,
    units with the same level do.

    Args:
        count: Most different capacities.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.
    """

    couples: ClassVar[bool] = True

    count: int

    def __post_init__(self) -> None:
        """Check the count."""
        object.__setattr__(self, "count", check_count("count", self.count))

    def terms(self, problem: "Problem") -> Terms:
        """Number the capacities."""
        units, levels = problem.loss.shape
        kind = np.broadcast_to(np.arange(levels), (units, levels))
        if problem.origin is not None:
            tokens = problem.origin.capacity_tokens
            kind = np.unique(tokens, return_inverse=True)[1].reshape(units, levels)
        return Terms(distinct=(Distinct(kind, self.count),))
