"""Budgets of layers, divided among the heads of each layer by their top tokens."""

from collections.abc import Sequence
from fractions import Fraction

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.problem import Problem

from .shares import beyond, divide, spread
from .token_bytes import bytes_of_tokens
from .winners import winning_bytes


def divide_layers(
    problem: Problem, layer_shares: Sequence[float], alpha: float, window_tokens: int
) -> Ints:
    """Levels when layers get shares of the budget and their heads compete inside.

    Args:
        problem: A problem whose lowest levels fit the budget.
        layer_shares: Share of each layer in what the windows leave, [layers], at least 0.
        alpha: Share of a layer's budget that its caches get alike, in 0..1.
        window_tokens: Tokens that every cache keeps beforehand.

    Returns:
        Levels, int64 [units]. Layers get whole levels' worth of their own budgets first.
    """
    layers, kv_heads = problem.shape
    window = bytes_of_tokens(problem, window_tokens)
    cost = problem.cost_bytes.reshape(layers, kv_heads, -1).sum(axis=1)
    wanted = beyond(sums(window, kv_heads), problem.budget_bytes, layer_shares)
    totals = spread(problem.budget_bytes, wanted, cost[:, 0].tolist(), cost[:, -1].tolist())
    layer = [unit // kv_heads for unit in range(len(window))]
    won = winning_bytes(problem, layer, totals, window)
    own, common = 1 - Fraction(alpha), Fraction(alpha) / kv_heads
    wanted = [own * won[u] + common * totals[layer[u]] for u in range(len(won))]
    return divide(problem, wanted, group=layer)


def sums(values: list[int], size: int) -> list[int]:
    """Sums of consecutive values, ``size`` at a time."""
    return [sum(values[start : start + size]) for start in range(0, len(values), size)]
