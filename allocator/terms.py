"""What constraints demand, as arrays that solvers can work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Ints

if TYPE_CHECKING:
    from .problem import Problem

Bools = NDArray[np.bool_]
ShareFunction = Callable[[Any], Sequence[Any]]
"""From the cvxpy expression of shares, [units, levels], to cvxpy constraints on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """A budget beside the total one.

    Args:
        cost_bytes: What each unit at each level takes of it, int64 [units, levels], never falling.
        most_bytes: Bytes that all units may take together.
        name: What it is a limit of, for messages.
    """

    cost_bytes: Ints
    most_bytes: int
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Distinct:
    """At most so many different kinds of levels in use.

    Args:
        kind: Kind of each unit's levels, int64 [units, levels], numbered from 0.
        most: How many kinds may be in use together.
    """

    kind: Ints
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Everything that one constraint, or all of a problem together, demand.

    The first two are worked into the menus before a solver is called; the others couple units,
    and only solvers that say so honour them.

    Args:
        allowed: Levels that may be chosen, [units, levels].
        group: Units with the same number take the same level, int64 [units].
        limits: Budgets beside the total one.
        distinct: Limits on the number of different levels.
        custom: Functions on the shares of a cvxpy model.
    """

    allowed: Bools | None = None
    group: Ints | None = None
    limits: tuple[Limit, ...] = ()
    distinct: tuple[Distinct, ...] = ()
    custom: tuple[ShareFunction, ...] = ()


def terms_of(problem: "Problem") -> Terms:
    """All that the constraints of a problem demand, together."""
    each = [constraint.terms(problem) for constraint in problem.constraints]
    allowed = [terms.allowed for terms in each if terms.allowed is not None]
    return Terms(
        allowed=np.logical_and.reduce(allowed) if allowed else None,
        group=join([terms.group for terms in each if terms.group is not None]),
        limits=tuple(limit for terms in each for limit in terms.limits),
        distinct=tuple(distinct for terms in each for distinct in terms.distinct),
        custom=tuple(function for terms in each for function in terms.custom),
    )


def join(groups: list[Ints]) -> Ints | None:
    """The finest grouping in which every one of these is contained, int64 [units]."""
    if not groups:
        return None
    joined = groups[0].copy()
    for group in groups[1:]:
        for unit, other in enumerate(group.tolist()):
            # all units of one group take the number of its first unit
            joined[joined == joined[unit]] = joined[np.flatnonzero(group == other)[0]]
    return joined
