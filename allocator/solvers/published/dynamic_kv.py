"""Layers by how many of the top tokens of the whole model lie in them.

Reference: Zhou et al., 2024. https://arxiv.org/abs/2412.14838
"""

from dataclasses import dataclass, field
from fractions import Fraction

from kvbudget.allocator.layers import layer_of_units, units_in_layers
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.head_step import sums
from kvbudget.allocator.sharing.importance import (
    Importance,
    check_importance,
    layer_importance,
    of_units,
)
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.shares import beyond, divide
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens, in_tokens, token_sizes
from kvbudget.allocator.sharing.winners import winning_bytes
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class DynamicKV(Solver):
    """Divide the budget over layers by the top tokens of all layers together.

    The tokens of largest weight of all layers together fill the budget. Beyond its window, a cache
    gets

        winners[l] / sum(winners) * (budget - sum(windows)),    the sum over all caches

    with the winners in its layer ``l``, at most ``most_of_base`` times an equal division. All
    caches of a layer are equal, up to one level of the menu, and but for caches that a smaller
    level serves as well.

    The formula is the published one. The original counts winners every few layers while it reads
    the prompt and cuts layers it has passed; here they are counted once, for all layers. Its
    corrections after rounding, which may miss the total, are not needed here.

    Args:
        most_of_base: Most that a cache gets beyond its window, over an equal division.
        window_tokens: Tokens that every cache gets besides. In a problem without an origin the
            lowest levels stand in for them.
        importance: Winners of each layer, [layers], or of each cache, [layers, kv_heads], in any
            unit. By default the curves tell: buying the steepest segments of all lower convex hulls
            is the same as keeping the top tokens where the loss is lost attention mass at a menu of
            single tokens.

    Reference:
        Zhou et al., "DynamicKV: Task-Aware Adaptive KV Cache Compression for Long Context LLMs",
        2024. https://arxiv.org/abs/2412.14838
    """

    most_of_base: float = 10.0
    window_tokens: int = 8
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("most_of_base", self.most_of_base, 1.0)
        check_tokens("window_tokens", self.window_tokens)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Round the shares of the winners to levels."""
        window, budget = bytes_of_tokens(problem, self.window_tokens), problem.budget_bytes
        base = Fraction(max(budget - sum(window), 0), len(window))
        most_beyond = Fraction(self.most_of_base) * base
        sizes = token_sizes(problem)
        most = [a + int(most_beyond * size) for a, size in zip(window, sizes, strict=True)]
        shares = beyond(window, budget, self._winners(problem, window))
        return Choice(divide(problem, shares, most_bytes=most))

    def _winners(self, problem: Problem, window: list[int]) -> list[Fraction]:
        """What the caches of each unit's layer win on average, [units]."""
        if self.importance is not None:
            return in_tokens(problem, of_units(problem, layer_importance(problem, self.importance)))
        one_group, total = [0] * len(window), [Fraction(problem.budget_bytes)]
        held = winning_bytes(problem, one_group, total, window)
        won = [a - b for a, b in zip(held, window, strict=True)]
        layer, heads = layer_of_units(problem).tolist(), units_in_layers(problem).tolist()
        by_layer = sums(won, layer)
        return [by_layer[at] / heads[at] for at in layer]
