"""The problem with everything that couples units, as a model for cvxpy and HiGHS.

A share says how much of a level a unit takes: 0 or 1 in the whole model, anything between in the
relaxed one. Bytes are counted above the lowest levels and divided by what they have in common,
losses are counted above the least of each unit, so that HiGHS sees numbers near 1.

Reference:
    Rockafellar and Uryasev, "Optimization of Conditional Value-at-Risk", Journal of Risk, 2000,
    for the risk. https://doi.org/10.21314/JOR.2000.038
    Huangfu and Hall, "Parallelizing the dual revised simplex method", Mathematical Programming
    Computation, 2018. https://doi.org/10.1007/s12532-017-0130-5
    Diamond and Boyd, "CVXPY: A Python-Embedded Modeling Language for Convex Optimization",
    Journal of Machine Learning Research, 2016. https://jmlr.org/papers/v17/15-408.html
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.coupling import custom_lines
from kvbudget.allocator.terms import Bools, Distinct, Terms

from .multipliers import Multipliers, admit
from .stacked import Stacked

MOST_ROOM = 2**20
"""Room of a limit, in its common part, above which it is scaled down to this."""
MOST_LOSS = 1e7
"""Scaled loss above which levels are all alike: HiGHS takes larger numbers for mistakes."""


@dataclass(frozen=True, slots=True, eq=False)
class ShareModel:
    """A cvxpy problem and what it takes to read its answer.

    Args:
        program: The cvxpy problem.
        share: Its variable, [units, levels].
        spent: Its byte limits, one constraint, [limits].
        tail: What makes each sample count: one constraint, [samples], or none for one sample.
        byte_scale: Bytes that count as 1 in each limit, [limits].
        loss_scale: Loss that counts as 1.
        loss_base: Loss that the objective is above.
        tail_samples: How many of the worst samples are averaged.
    """

    program: Any
    share: Any
    spent: Any
    tail: list[Any]
    byte_scale: Floats
    loss_scale: float
    loss_base: float
    tail_samples: float

    def loss(self, objective: float) -> float:
        """Loss behind a value of the objective."""
        return objective * self.loss_scale + self.loss_base

    def multipliers(self) -> Multipliers:
        """Prices and weights, from the dual values of the relaxed model."""
        price = np.atleast_1d(self.spent.dual_value) * self.loss_scale / self.byte_scale
        weight = [np.atleast_1d(each.dual_value) for each in self.tail] or [np.ones(1)]
        return admit(price, weight[0], self.tail_samples)


def build_model(
    stacked: Stacked, terms: Terms, possible: Bools, loss_scale: float, *, whole: bool
) -> ShareModel:
    """Write down the model.

    Args:
        stacked: Limits and samples.
        terms: Numbers of different levels, and custom functions.
        possible: Levels that may be used, [units, levels]; others are no loss to the optimum.
        loss_scale: Loss that is to count as 1.
        whole: Whether each unit must take one level.
    """
    import cvxpy as cp

    share = cp.Variable(possible.shape, boolean=whole, nonneg=not whole)
    shares = cp.vec(share, order="C")
    bytes_each, room, byte_scale = scale_bytes(stacked)
    loss_each, base, loss_base = scale_loss(stacked, loss_scale)
    spent = bytes_each @ shares <= room
    objective, tail = tail_mean(loss_each @ shares + base, stacked.tail_samples)
    program = cp.Problem(
        cp.Minimize(objective),
        [
            cp.sum(share, axis=1) == 1,
            cp.sum(shares[np.flatnonzero(~possible)]) == 0,
            spent,
            *tail,
            *(line for each in terms.distinct for line in count_kinds(each, shares, whole)),
            *(line for function in terms.custom for line in custom_lines(function, share)),
        ],
    )
    return ShareModel(
        program, share, spent, tail, byte_scale, loss_scale, loss_base, stacked.tail_samples
    )


def rule_out(model: ShareModel, levels: Ints) -> ShareModel:
    """The same model without one choice of levels, int64 [units]."""
    import cvxpy as cp

    taken = cp.sum(model.share[np.arange(len(levels)), levels])
    program = cp.Problem(
        model.program.objective, [*model.program.constraints, taken <= len(levels) - 1]
    )
    return replace(model, program=program)


def tail_mean(totals: Any, tail_samples: float) -> tuple[Any, list[Any]]:
    """Mean of the largest totals as an expression, and the constraint that makes it so.

    Args:
        totals: Loss of each sample as an expression, [samples].
        tail_samples: How many to average.
    """
    import cvxpy as cp

    if totals.size == 1:
        return cp.sum(totals), []
    start, excess = cp.Variable(), cp.Variable(totals.size, nonneg=True)
    return start + cp.sum(excess) / tail_samples, [totals <= start + excess]


def scale_bytes(stacked: Stacked) -> tuple[Floats, Floats, Floats]:
    """Bytes above the lowest levels, [limits, shares], their room, [limits], and the scale of both.

    Whole numbers stay whole where they are small enough for HiGHS to add them exactly.
    """
    extra = stacked.cost_bytes - stacked.cost_bytes[:, :, :1]
    room = stacked.most_bytes - stacked.cost_bytes[:, :, 0].sum(axis=1)
    limits = len(room)
    # what does not fit alone is not possible, whatever its size
    extra = np.minimum(extra, room[:, None, None] + 1).reshape(limits, -1)
    common = np.maximum(np.gcd.reduce(np.where(extra > room[:, None], 0, extra), axis=1), 1)
    scale = common * np.maximum(room // common / MOST_ROOM, 1.0)
    return extra / scale[:, None], (room // common) * (common / scale), scale


def scale_loss(stacked: Stacked, loss_scale: float) -> tuple[Floats, Floats, float]:
    """Losses above the least of a unit, [samples, shares], and each sample's base, [samples].

    What is too large for HiGHS is lowered, so the optimum is never above the true one.
    """
    least = stacked.sample_loss.min(axis=2)  # [samples, units]
    extra = (stacked.sample_loss - least[:, :, None]) / loss_scale
    base = least.sum(axis=1)
    above = np.minimum((base - base.min()) / loss_scale, MOST_LOSS)
    return np.minimum(extra, MOST_LOSS).reshape(len(base), -1), above, float(base.min())


def count_kinds(distinct: Distinct, shares: Any, whole: bool) -> list[Any]:
    """At most so many kinds are open, and a unit takes only levels of open kinds."""
    import cvxpy as cp
    from scipy import sparse

    kinds = int(distinct.kind.max()) + 1
    is_open = cp.Variable(kinds, boolean=whole, bounds=None if whole else [0, 1])
    units = np.arange(len(distinct.kind))[:, None]
    pairs, row = np.unique(units * kinds + distinct.kind, return_inverse=True)
    ones = np.ones(distinct.kind.size)
    of_pair = sparse.csr_array((ones, (row.ravel(), np.arange(distinct.kind.size))))
    row_of_pair = np.arange(len(pairs))
    opens = sparse.csr_array(
        (np.ones(len(pairs)), (row_of_pair, pairs % kinds)), shape=(len(pairs), kinds)
    )
    return [of_pair @ shares <= opens @ is_open, cp.sum(is_open) <= distinct.most]
