"""A budget for some of the caches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kvbudget.allocator.budget import Budget, Tokens, to_bytes
from kvbudget.allocator.caches import Indices, check_selection, name_caches, origin_of, select
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.terms import Bools, Limit, Terms

if TYPE_CHECKING:
    from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True)
class ByteLimit(Constraint):
    """Some caches together use at most so many bytes, beside the total budget.

    One per device (``layers=range(0, 16)``), per tensor-parallel rank (``kv_heads=(0, 1)``), or
    per group of layers. Solvers with one price per limit honour it.

    Args:
        budget: Bytes, ``"2GiB"``, ``"25%"`` of the full cache of these caches, or
            ``Tokens(1024)``, the mean of these caches.
        layers: Layers that share it, counted from 0; all if ``None``.
        kv_heads: KV heads that share it, counted from 0; all if ``None``.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If the budget cannot be read or an index is out of range.
    """

    couples: ClassVar[bool] = True

    budget: Budget
    layers: Indices = None
    kv_heads: Indices = None

    def __post_init__(self) -> None:
        """Check every field."""
        to_bytes(self.budget, full_bytes=2**53, token_bytes=1)  # for its checks
        check_selection(self)

    def terms(self, problem: "Problem") -> Terms:
        """One limit that the chosen caches' bytes count towards."""
        chosen = select(problem, self.layers, self.kv_heads)
        cost_bytes = np.where(chosen[:, None], problem.cost_bytes, 0)
        most_bytes = to_bytes(
            self.budget,
            full_bytes=sum(cost_bytes[:, -1].tolist()),
            token_bytes=self._token_bytes(problem, chosen),
        )
        name = name_caches(self.layers, self.kv_heads)
        return Terms(limits=(Limit(cost_bytes, most_bytes, name),))

    def _token_bytes(self, problem: "Problem", chosen: Bools) -> int:
        """Bytes of one token in each of the chosen caches; only a budget in tokens needs them."""
        if not isinstance(self.budget, Tokens):
            return 1
        origin = origin_of(problem, "ByteLimit(Tokens(...))")
        token_bytes: list[int] = origin.token_bytes[chosen].tolist()
        return sum(token_bytes) * origin.batch_size
