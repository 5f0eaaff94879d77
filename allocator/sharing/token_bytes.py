"""Bytes of tokens that every cache keeps, for rules that are written in tokens."""

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
    token_bytes = problem.origin.geometry.bytes_per_token * problem.origin.batch_size
    wanted = num_tokens * token_bytes
    return [min(max(wanted, low), high) for low, high in zip(lowest, highest, strict=True)]
