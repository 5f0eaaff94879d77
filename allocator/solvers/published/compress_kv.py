"""Layers by the error that a small cache makes in their output.

Reference: Lin et al., 2025. https://arxiv.org/abs/2508.02401
"""

from dataclasses import dataclass, field

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import (
    Importance,
    check_importance,
    layer_importance,
    of_units,
)
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.shares import beyond, divide
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens, in_tokens, token_sizes
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class CompressKV(Solver):
    """Divide the budget over layers in proportion to their error, within limits.

    Every cache gets ``least_tokens``; the rest of the budget is divided over layers in proportion
    to the error of their output when their caches are small:

        least + error[l] / sum(error) * (budget - sum(least)),    both sums over all caches

    and cut off at ``most_of_mean`` times the mean. All caches of a layer are equal, up to one
    level of the menu, and but for caches that a smaller level serves as well.

    The formula is the published one. The original repairs its total token by token in the order of
    the error; here what the limits cut off is divided in proportion. It measures the error as the
    relative norm of the change of the layer's output; with the default signal this is a
    reconstruction.

    Args:
        least_tokens: Tokens that every cache gets at least. In a problem without an origin the
            lowest levels stand in for them.
        most_of_mean: Most bytes of a cache over the mean bytes of all, at least 1.
        importance: Error of each layer's output at a small cache, [layers], or of each cache,
            [layers, kv_heads], of which each layer takes the mean. By default the loss that memory
            can remove from the cache.

    Reference:
        Lin et al., "CompressKV: Semantic Retrieval Heads Know What Tokens are Not Important Before
        Generation", 2025. https://arxiv.org/abs/2508.02401
    """

    least_tokens: int = 32
    most_of_mean: float = 3.0
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_tokens("least_tokens", self.least_tokens)
        check_range("most_of_mean", self.most_of_mean, 1.0)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Round the shares to levels."""
        least, budget = bytes_of_tokens(problem, self.least_tokens), problem.budget_bytes
        error = of_units(problem, layer_importance(problem, self.importance))
        mean = self.most_of_mean * (budget / len(least))
        most = [int(mean * size) for size in token_sizes(problem)]
        shares = beyond(least, budget, in_tokens(problem, error))
        return Choice(divide(problem, shares, most_bytes=most))
