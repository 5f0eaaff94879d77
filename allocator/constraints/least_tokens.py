"""A floor under the capacity of caches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvbudget.allocator.caches import Indices, capacity_of, check_selection, select
from kvbudget.allocator.checks import check_count
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.terms import Terms

if TYPE_CHECKING:
    from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True)
class LeastTokens(Constraint):
    """Each cache keeps at least so many tokens, or everything where it needs fewer.

    Args:
        tokens: Least capacity of a cache.
        layers: Layers it holds for, counted from 0; all if ``None``.
        kv_heads: KV heads it holds for, counted from 0; all if ``None``.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range.
    """

    tokens: int
    layers: Indices = None
    kv_heads: Indices = None

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "tokens", check_count("tokens", self.tokens))
        check_selection(self)

    def terms(self, problem: "Problem") -> Terms:
        """Levels with fewer tokens are out."""
        capacity = capacity_of(problem, type(self).__name__)
        enough = capacity >= np.minimum(self.tokens, capacity[:, -1:])
        return Terms(allowed=enough | ~select(problem, self.layers, self.kv_heads)[:, None])
