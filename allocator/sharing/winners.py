"""Who wins when the best parts of all curves are bought first: the choice of the top tokens.

Where the loss is lost attention mass at a menu of single tokens, buying the steepest segments of
the curves first is the same as keeping the tokens with the largest weights.
"""

from collections.abc import Sequence
from fractions import Fraction

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import hull_segments


def winning_bytes(
    problem: Problem,
    group: Sequence[int],
    total_bytes: Sequence[Fraction],
    least_bytes: Sequence[int],
) -> list[Fraction]:
    """Bytes of each unit when every group buys its steepest hull segments first, [units].

    The last segment may be bought in part. A group stops where no loss is left to remove.

    Args:
        problem: The knapsack.
        group: Group that each unit buys in, numbered from 0, [units].
        total_bytes: Bytes of each group, [groups].
        least_bytes: Bytes that each unit holds beforehand, [units], within its levels.
    """
    held = [Fraction(least) for least in least_bytes]
    skipped = [a - b for a, b in zip(least_bytes, problem.cost_bytes[:, 0].tolist(), strict=True)]
    left = list(total_bytes)
    for unit, least in enumerate(least_bytes):
        left[group[unit]] -= least
    _, segments = hull_segments(problem)
    for unit, step in zip(segments.unit.tolist(), segments.cost_bytes.tolist(), strict=True):
        owned = min(step, skipped[unit])
        skipped[unit] -= owned
        taken = max(min(step - owned, left[group[unit]]), Fraction(0))
        held[unit] += taken
        left[group[unit]] -= taken
    return held
