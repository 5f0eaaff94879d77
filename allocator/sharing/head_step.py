"""Budgets of layers, divided among the heads of each layer by their top tokens."""

from collections.abc import Sequence
from fractions import Fraction

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.layers import layer_of_units, sum_in_layers, units_in_layers
from kvbudget.allocator.problem import Problem

from .shares import beyond, divide, spread
from .token_bytes import bytes_of_tokens, token_sizes
from .winners import winning_bytes


def divide_layers(
    problem: Problem, layer_shares: Sequence[float], alpha: float, window_tokens: int
) -> Ints:
    """Levels when layers get shares of the budget and their heads compete inside.

    Args:
        problem: A problem whose lowest levels fit the budget.
        layer_shares: Share of each layer in what the windows leave, [layers], at least 0; where
            layers differ in size, in proportion to what one token in all their caches takes.
        alpha: Share of a layer's budget that its caches get alike, in 0..1.
        window_tokens: Tokens that every cache keeps beforehand.

    Returns:
        Levels, int64 [units]. Layers get whole levels' worth of their own budgets first.
    """
    window = bytes_of_tokens(problem, window_tokens)
    cost = sum_in_layers(problem, problem.cost_bytes)
    layer, heads = layer_of_units(problem).tolist(), units_in_layers(problem).tolist()
    sizes = sums(token_sizes(problem), layer)
    shares = [Fraction(share) * size for share, size in zip(layer_shares, sizes, strict=True)]
    wanted = beyond([int(held) for held in sums(window, layer)], problem.budget_bytes, shares)
    totals = spread(problem.budget_bytes, wanted, cost[:, 0].tolist(), cost[:, -1].tolist())
    won = winning_bytes(problem, layer, totals, window)
    own, common = 1 - Fraction(alpha), Fraction(alpha)
    wanted = [own * won[u] + common * totals[at] / heads[at] for u, at in enumerate(layer)]
    return divide(problem, wanted, group=layer)


def sums(values: Sequence[int | Fraction], layer: Sequence[int]) -> list[Fraction]:
    """Sum of the values of each layer, [layers].

    Args:
        values: Values of the units, [units].
        layer: Layer of each unit, [units]; every layer has one.
    """
    totals = [Fraction(0)] * (max(layer) + 1)
    for value, at in zip(values, layer, strict=True):
        totals[at] += value
    return totals
