"""Tokens in bytes, for rules that are written in tokens.

Where the tokens of layers differ in bytes, such a rule treats caches alike that hold equally many
tokens, not bytes.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.layers import sum_in_layers
from kvbudget.allocator.problem import Problem


def bytes_of_tokens(problem: Problem, num_tokens: int) -> list[int]:
    """Bytes of the first so many tokens of each unit, [units], within the unit's levels.

    Without an origin nothing is known of tokens, and the lowest levels stand in: they, too, are
    what every cache keeps whatever happens.
    """
    lowest: list[int] = problem.cost_bytes[:, 0].tolist()
    highest = problem.cost_bytes[:, -1].tolist()
    if problem.origin is None:
        return lowest
    batch = problem.origin.batch_size
    wanted = [num_tokens * size * batch for size in problem.origin.token_bytes.tolist()]
    bounds = zip(wanted, lowest, highest, strict=True)
    return [min(max(want, low), high) for want, low, high in bounds]


def token_sizes(problem: Problem) -> list[Fraction]:
    """Bytes of a token in each unit over their mean, [units]; 1 where nothing is known of them."""
    if problem.origin is None:
        return [Fraction(1)] * len(problem.loss)
    sizes = problem.origin.token_bytes.tolist()
    total = sum(sizes)
    return [Fraction(size * len(sizes), total) for size in sizes]


def layer_sizes(problem: Problem) -> Floats:
    """Bytes of a token in all caches of each layer over their mean, [layers]."""
    sizes = sum_in_layers(problem, np.array(token_sizes(problem), dtype=np.float64))
    relative: Floats = sizes / sizes.mean()
    return relative


def in_tokens(problem: Problem, shares: Sequence[float | Fraction]) -> list[Fraction]:
    """Shares of bytes that give tokens in these shares, [units]; equal ones if all are 0."""
    sizes = token_sizes(problem)
    if not any(shares):
        return sizes
    return [Fraction(share) * size for share, size in zip(shares, sizes, strict=True)]
