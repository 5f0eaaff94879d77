"""Whether a choice honours the constraints that couple units."""

from typing import Any

import numpy as np

from .arrays import Ints
from .problem import Problem
from .terms import Distinct, Limit, ShareFunction, terms_of

TOLERANCE = 1e-6
"""By how much a custom constraint, in the unit it is written in, may be missed."""


def lowest_fits(problem: Problem) -> bool:
    """Whether the lowest levels of a reduced problem fit its budget and all its byte limits."""
    lowest = np.zeros(len(problem.loss), dtype=np.int64)
    limits = terms_of(problem).limits
    fits = all(taken_bytes(limit, lowest) <= limit.most_bytes for limit in limits)
    return fits and problem.floor_bytes <= problem.budget_bytes


def violation(problem: Problem, levels: Ints) -> str:
    """Say which coupling constraint a choice breaks; empty if it honours them all.

    Args:
        problem: The problem.
        levels: Level of each unit, int64 [units].
    """
    terms = terms_of(problem)
    faults = [broken_limit(limit, levels) for limit in terms.limits]
    faults += [broken_count(distinct, levels) for distinct in terms.distinct]
    faults += [broken_custom(each, levels, problem.loss.shape) for each in terms.custom]
    return next((fault for fault in faults if fault), "")


def taken_bytes(limit: Limit, levels: Ints) -> int:
    """Bytes of a choice that count towards a limit."""
    return sum(limit.cost_bytes[np.arange(len(levels)), levels].tolist())


def broken_limit(limit: Limit, levels: Ints) -> str:
    """Say by how much a choice misses a byte limit."""
    used = taken_bytes(limit, levels)
    if used <= limit.most_bytes:
        return ""
    return f"it uses {used:,} bytes of {limit.most_bytes:,} for {limit.name}"


def broken_count(distinct: Distinct, levels: Ints) -> str:
    """Say by how much a choice misses a number of capacities."""
    count = len(np.unique(distinct.kind[np.arange(len(levels)), levels]))
    return f"it uses {count} capacities of {distinct.most}" if count > distinct.most else ""


def broken_custom(function: ShareFunction, levels: Ints, shape: tuple[int, ...]) -> str:
    """Say by how much a choice misses a custom constraint."""
    import cvxpy as cp

    share = np.zeros(shape)
    share[np.arange(len(levels)), levels] = 1.0
    lines = custom_lines(function, cp.Constant(share))
    worst = max((largest(line.violation()) for line in lines), default=0.0)
    return f"it misses a custom constraint by {worst:.3g}" if worst > TOLERANCE else ""


def custom_lines(function: ShareFunction, share: Any) -> list[Any]:
    """The cvxpy constraints that a custom function makes of shares.

    Args:
        function: The function.
        share: Expression of shape [units, levels].

    Raises:
        TypeError: If it returns no list of cvxpy constraints.
        ValueError: If one of them is not linear, or at least convex and piecewise linear.
    """
    from cvxpy import constraints as kinds

    lines = function(share)
    if not isinstance(lines, list | tuple):
        raise TypeError(f"`function` must return a list of constraints, but got {lines!r:.60}.")
    linear = (kinds.Inequality, kinds.Equality, kinds.NonPos, kinds.NonNeg, kinds.Zero)
    for line in lines:
        if not isinstance(line, kinds.Constraint):
            raise TypeError(f"`function` must return cvxpy constraints, but got {line!r:.60}.")
        if not (isinstance(line, linear) and line.is_dcp() and all(x.is_pwl() for x in line.args)):
            raise ValueError(
                "`function` must return constraints that are linear, or convex and piecewise"
                f" linear as sums of abs and max are, but got {line!s:.60}."
            )
    return list(lines)


def largest(residual: Any) -> float:
    """Largest entry of what cvxpy calls the violation of a constraint."""
    return float(np.max(residual))
