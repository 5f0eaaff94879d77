"""A fixed share of retrieval heads whole, a fraction of every other cache.

Reference: Tang et al., ICLR 2025. https://arxiv.org/abs/2407.15891
"""

import math
from dataclasses import dataclass, field

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import Importance, cache_importance, check_importance
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.retrieval_heads import whole_or_small
from kvbudget.allocator.sharing.shares import clip
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class RazorAttention(Solver):
    """Keep a share of the caches whole; all others are small and equal.

    The most important caches, a share of all, stay whole. Every other one keeps

        sinks + whole / compression

    bytes, its first tokens and a part of itself; what the budget holds beyond that is spread over
    these in equal parts. Small caches are equal up to one level of the menu, and but for caches
    that a smaller level serves as well. A smaller budget keeps fewer caches whole.

    Where the budget does not hold the most important cache whole beside the small size of all
    others, as at short contexts and small budgets, no cache is whole: all are equal in the same
    sense, and importance does not matter.

    This is a reconstruction: its constants were not verified, and the default signal is another
    one. The original finds retrieval heads by prompts of repeated random tokens and keeps a whole
    group if one of its query heads is one. It never keeps fewer than 4000 latest tokens, which a
    byte budget cannot promise, and adds one token that stands in for those dropped, which is no
    matter of budgets.

    Args:
        retrieval_share: Share of all caches that stay whole, in 0..1, rounded up.
        compression: Bytes of a whole cache over those of a small one, at least 1.
        sink_tokens: First tokens that a small cache holds besides. In a problem without an
            origin the lowest levels stand in for them.
        importance: Retrieval score of each cache, the maximum over the query heads of its group,
            [layers, kv_heads], or of each layer, [layers]. By default the loss that memory can
            remove from the cache.

    Reference:
        Tang et al., "RazorAttention: Efficient KV Cache Compression Through Retrieval Heads", ICLR
        2025. https://arxiv.org/abs/2407.15891
    """

    retrieval_share: float = 0.15
    compression: float = 5.0
    sink_tokens: int = 4
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("retrieval_share", self.retrieval_share, 0.0, 1.0)
        check_range("compression", self.compression, 1.0)
        check_tokens("sink_tokens", self.sink_tokens)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Keep the most important caches whole."""
        importance = cache_importance(problem, self.importance)
        lowest, highest = problem.cost_bytes[:, 0].tolist(), problem.cost_bytes[:, -1].tolist()
        sinks = bytes_of_tokens(problem, self.sink_tokens)
        wanted = [a + int(b / self.compression) for a, b in zip(sinks, highest, strict=True)]
        small = clip(wanted, lowest, highest)
        most_whole = math.ceil(self.retrieval_share * len(small))
        return Choice(whole_or_small(problem, importance, small, most_whole))
