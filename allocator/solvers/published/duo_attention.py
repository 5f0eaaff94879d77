"""Retrieval heads whole, streaming heads at a fixed small size.

Reference: Xiao et al., ICLR 2025. https://arxiv.org/abs/2410.10819
"""

from dataclasses import dataclass, field

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import Importance, cache_importance, check_importance
from kvbudget.allocator.sharing.ranges import check_tokens
from kvbudget.allocator.sharing.retrieval_heads import whole_or_small
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class DuoAttention(Solver):
    """Keep as many caches whole as the budget allows; all others are small and equal.

    Caches are ranked by importance. As many as the budget allows stay whole while all others hold
    their first and latest tokens, or as much of them as they can hold; what is left then is spread
    over these in equal parts. Small caches are equal up to one level of the menu, and but for
    caches that a smaller level serves as well.

    Where the budget does not hold the most important cache whole beside the small size of all
    others, as at short contexts and small budgets, no cache is whole: all are equal in the same
    sense, and importance does not matter.

    The original learns a gate per KV head by gradient descent and takes the heads above a quantile
    of the gates. Here their share follows from the budget, and the default signal is another one,
    which makes this a reconstruction.

    Args:
        sink_tokens: First tokens that a small cache holds.
        recent_tokens: Latest tokens that a small cache holds. In a problem without an origin the
            lowest levels stand in for a small cache.
        importance: Gate of each cache, [layers, kv_heads], or of each layer, [layers]. By default
            the loss that memory can remove from the cache.

    Reference:
        Xiao et al., "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and
        Streaming Heads", ICLR 2025. https://arxiv.org/abs/2410.10819
    """

    sink_tokens: int = 64
    recent_tokens: int = 256
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_tokens("sink_tokens", self.sink_tokens)
        check_tokens("recent_tokens", self.recent_tokens)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Keep the most important caches whole."""
        importance = cache_importance(problem, self.importance)
        small = bytes_of_tokens(problem, self.sink_tokens + self.recent_tokens)
        return Choice(whole_or_small(problem, importance, small, len(small)))
