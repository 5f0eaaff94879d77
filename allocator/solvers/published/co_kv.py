"""Heads by what they contribute to coalitions, above the least.

Reference: Sun et al., 2025. https://arxiv.org/abs/2502.17501
"""

from dataclasses import dataclass, field

import numpy as np

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import Importance, cache_importance, check_importance
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.shares import beyond, divide
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens, in_tokens
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class CoKV(Solver):
    """Divide the budget in proportion to contribution above that of the least caches.

    The caches of least contribution get their window only; the others get, beyond it, shares in
    proportion to

        max(contribution - kth, 0)

    where ``kth`` is the ``k``-th smallest contribution of all.

    The formula is the published one. The original measures contributions by running a task with
    random coalitions of heads, an estimate of Shapley values, and sets ``k`` for each task. Here a
    share of all caches is ``k``, and the default signal is another one, which makes this a
    reconstruction.

    Args:
        least_share: Share of all caches that get their window only, in 0..1.
        window_tokens: Tokens that every cache gets besides. In a problem without an origin the
            lowest levels stand in for them.
        importance: Contribution of each cache, [layers, kv_heads], or of each layer, [layers]. By
            default the loss that memory can remove from the cache.

    Reference:
        Sun et al., "CoKV: Optimizing KV Cache Allocation via Cooperative Game", 2025.
        https://arxiv.org/abs/2502.17501
    """

    least_share: float = 0.25
    window_tokens: int = 8
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("least_share", self.least_share, 0.0, 1.0)
        check_tokens("window_tokens", self.window_tokens)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Round the shares to levels."""
        importance = cache_importance(problem, self.importance)
        rank = max(round(self.least_share * len(importance)), 1)
        kth = np.sort(importance)[rank - 1]
        shares = np.maximum(importance - kth, 0.0).tolist()
        window = bytes_of_tokens(problem, self.window_tokens)
        wanted = beyond(window, problem.budget_bytes, in_tokens(problem, shares))
        return Choice(divide(problem, wanted))
