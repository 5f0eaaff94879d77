"""What can be worked into the menus is: solvers then see a plain problem, or nearly so.

Levels that may not be chosen become copies of a level that may, so that menus stay rectangular.
Units that must take the same level become one unit, whose curve is the sum of theirs. Both are
exact. Only constraints that couple units remain.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .arrays import Floats, Ints
from .constraint import Constraint
from .curves import running_minimum
from .measured import measured_loss
from .origin import Origin
from .problem import Problem
from .terms import Bools, Distinct, Limit, ShareFunction, Terms, terms_of


@dataclass(frozen=True, slots=True, eq=False)
class Coupling(Constraint):
    """What is left of the constraints in a reduced problem.

    Args:
        held: Limits, numbers of different levels, and custom functions.
    """

    couples: ClassVar[bool] = True

    held: Terms

    def terms(self, problem: Problem) -> Terms:
        """The terms as they are."""
        return self.held


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """A problem for solvers, and the way back.

    Args:
        problem: The reduced problem; its losses are finite.
        stand_in: Level that stands for each level of each unit, int64 [units, levels].
        group: Reduced unit of each unit, int64 [units].
    """

    problem: Problem
    stand_in: Ints
    group: Ints

    def expand(self, levels: Ints) -> Ints:
        """Levels of the original units, int64 [units], from those of the reduced ones."""
        expanded: Ints = self.stand_in[np.arange(len(self.group)), levels[self.group]]
        return expanded


def reduce(problem: Problem) -> Reduction | None:
    """Work everything into the menus that can be; ``None`` if a unit is left without a level."""
    terms = terms_of(problem)
    finite = np.isfinite(problem.loss)
    if terms.allowed is None and terms.group is None and finite.all():
        units, levels = problem.loss.shape
        stand_in = np.broadcast_to(np.arange(levels), (units, levels))
        return Reduction(problem, stand_in, np.arange(units))
    allowed = finite if terms.allowed is None else finite & terms.allowed
    group = number(np.arange(len(allowed)) if terms.group is None else terms.group)
    together = np.ones((group.max() + 1, allowed.shape[1]), dtype=bool)
    np.logical_and.at(together, group, allowed)
    if not together.any(axis=1).all():
        return None
    stand_in = nearest_allowed(together)[group]
    return Reduction(rewrite(problem, terms, stand_in, group), stand_in, group)


def number(group: Ints) -> Ints:
    """Number groups from 0 in the order of their first units, int64 [units]."""
    _, first, label = np.unique(group, return_index=True, return_inverse=True)
    ranks: Ints = np.argsort(np.argsort(first))[label]
    return ranks


def nearest_allowed(allowed: Bools) -> Ints:
    """For each level the highest allowed one up to it, else the lowest allowed, [units, levels].

    Args:
        allowed: Levels that may be chosen, [units, levels], at least one per unit.
    """
    levels = np.where(allowed, np.arange(allowed.shape[1]), -1)
    below = np.maximum.accumulate(levels, axis=1)
    return np.where(below < 0, allowed.argmax(axis=1)[:, None], below)


def rewrite(problem: Problem, terms: Terms, stand_in: Ints, group: Ints) -> Problem:
    """The reduced problem."""
    units = np.arange(len(group))[:, None]
    merged = len(np.unique(group)) < len(group)
    samples = problem.sample_loss
    loss = measured_loss(problem) if samples is None else problem.loss

    def merge(curves: Any) -> Any:
        return add_up(curves[..., units, stand_in], group)

    coupling = Terms(
        limits=tuple(Limit(merge(x.cost_bytes), x.most_bytes, x.name) for x in terms.limits),
        # the members of a group have equal menus, so the first one speaks for all
        distinct=tuple(
            Distinct(x.kind[units, stand_in][first_members(group)], x.most) for x in terms.distinct
        ),
        custom=tuple(expanding(function, stand_in, group) for function in terms.custom),
    )
    coupled = coupling.limits or coupling.distinct or coupling.custom
    return replace(
        problem,
        # tied units cannot each step down to a better level, so their sum is repaired instead
        loss=running_minimum(merge(loss)),
        cost_bytes=merge(problem.cost_bytes),
        constraints=(Coupling(coupling),) if coupled else (),
        origin=None if merged else rewrite_origin(problem.origin, stand_in),
        sample_loss=None if samples is None else merge(samples),
    )


def add_up(curves: Any, group: Ints) -> Any:
    """Sums over the units of each group, [..., groups, levels], from [..., units, levels]."""
    sums = np.zeros((*curves.shape[:-2], group.max() + 1, curves.shape[-1]), dtype=curves.dtype)
    np.add.at(np.moveaxis(sums, -2, 0), group, np.moveaxis(curves, -2, 0))
    return sums


def first_members(group: Ints) -> Ints:
    """First unit of each group, int64 [groups]."""
    return np.unique(group, return_index=True)[1]


def rewrite_origin(origin: Origin | None, stand_in: Ints) -> Origin | None:
    """The origin with the menus of the reduced problem."""
    if origin is None:
        return None
    capacity = np.take_along_axis(origin.capacity_tokens, stand_in, axis=1)
    loss = np.take_along_axis(origin.loss, stand_in, axis=1)
    return replace(origin, capacity_tokens=capacity, loss=loss)


def expanding(function: ShareFunction, stand_in: Ints, group: Ints) -> ShareFunction:
    """The function on the shares of a reduced problem, from one on those of the original."""
    sources: list[Floats] = [
        (stand_in == level).astype(np.float64) for level in range(stand_in.shape[1])
    ]

    def reduced(share: Any) -> Any:
        import cvxpy as cp

        whole = share[group, :]
        columns = [cp.sum(cp.multiply(source, whole), axis=1, keepdims=True) for source in sources]
        return function(cp.hstack(columns))

    return reduced
