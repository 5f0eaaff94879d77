"""Caches that are never cut."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbudget.allocator.caches import Indices, check_selection, select
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.terms import Terms

if TYPE_CHECKING:
    from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True)
class Protected(Constraint):
    """Some caches keep everything; the others share what is left of the budget.

    Args:
        layers: Layers that are protected, counted from 0; all if ``None``.
        kv_heads: KV heads that are protected, counted from 0; all if ``None``.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If an index is out of range, or nothing says which caches are meant.
    """

    layers: Indices = None
    kv_heads: Indices = None

    def __post_init__(self) -> None:
        """Check every field."""
        check_selection(self)
        if self.layers is None and self.kv_heads is None:
            raise ValueError("`layers` or `kv_heads` must say which caches to protect.")

    def terms(self, problem: "Problem") -> Terms:
        """Levels that need less memory than the largest are out."""
        whole = problem.cost_bytes == problem.cost_bytes[:, -1:]
        return Terms(allowed=whole | ~select(problem, self.layers, self.kv_heads)[:, None])
