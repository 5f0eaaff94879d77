"""Heads by how well they retrieve: a common floor and a pool divided by score.

Reference: Fu et al., ICLR 2025. https://arxiv.org/abs/2410.19258
"""

from dataclasses import dataclass, field

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import Importance, cache_importance, check_importance
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.shares import beyond, divide
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens, in_tokens, token_sizes
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class HeadKV(Solver):
    """Give every cache a floor and divide a pool in proportion to retrieval scores.

    With the mean bytes ``base`` of a cache beyond its window, every cache gets, beyond it,

        base - base / beta + score * (caches * base / beta)

    where the scores of all caches sum to 1 after they have been raised to the power
    ``temperature``.

    The formula is the published one, in whole bytes instead of tokens. The original scores query
    heads by how much they attend to a needle they are asked for; with the default signal this is a
    reconstruction. In the original a cache may be given more than it can hold, which is lost; here
    the others get it. The paper sweeps ``beta`` for each task and budget.

    Args:
        beta: Budget over the part of it that is divided by score, at least 1.
        temperature: Power that scores are raised to, at least 0.
        window_tokens: Tokens that every cache gets besides. In a problem without an origin the
            lowest levels stand in for them.
        importance: Score of each cache, the mean over the query heads of its group, [layers,
            kv_heads], or of each layer, [layers]. By default the loss that memory can remove from
            the cache.

    Reference:
        Fu et al., "Not All Heads Matter: A Head-Level KV Cache Compression Method with Integrated
        Retrieval and Reasoning", ICLR 2025. https://arxiv.org/abs/2410.19258
    """

    beta: float = 1.5
    temperature: float = 1.0
    window_tokens: int = 8
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("beta", self.beta, 1.0)
        check_range("temperature", self.temperature, 0.0)
        check_tokens("window_tokens", self.window_tokens)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Round the shares to levels."""
        importance = cache_importance(problem, self.importance)
        # relative to the largest, so that no power overflows
        score = (importance / (importance.max() or 1.0)) ** self.temperature
        window, budget = bytes_of_tokens(problem, self.window_tokens), problem.budget_bytes
        pool = int(max(budget - sum(window), 0) / self.beta)
        floor = beyond(window, budget - pool, token_sizes(problem))
        scored = beyond([0] * len(window), pool, in_tokens(problem, score.tolist()))
        return Choice(divide(problem, [a + b for a, b in zip(floor, scored, strict=True)]))
