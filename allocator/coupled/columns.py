"""The relaxed problem with several limits and samples, solved on the few levels that matter.

A linear program over some levels of each unit prices all limits and weighs all samples. Every
unit's best level at these prices joins it, until none is better than what it holds. Each round
also proves a bound; the best one is kept.

Reference:
    Dantzig and Wolfe, "Decomposition Principle for Linear Programs", Operations Research, 1960.
    https://doi.org/10.1287/opre.8.1.101
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import Relaxation, relax
from kvbudget.allocator.terms import Bools

from .multipliers import Multipliers, admit, prove_bound, reduced_loss
from .stacked import Stacked

ROUNDS = 60
AROUND = tuple(2.0**power for power in range(-3, 4))
"""Prices to start from, as parts of the price of the total budget alone."""
CLOSED = 1e-9
"""Part of the loss scale below which a level is no better than the ones in the program."""

MOST_LOSS = 1e9
"""Scaled loss beyond which levels are all alike: HiGHS takes larger numbers for mistakes."""


@dataclass(frozen=True, slots=True, eq=False)
class CoupledRelaxation:
    """Optimum of the relaxed problem.

    Args:
        share: Share of each level, [units, levels]; a unit's are together 1.
        multipliers: Prices and weights that prove the bound.
        bound: Loss that no plan within the limits can beat.
    """

    share: Floats
    multipliers: Multipliers
    bound: float


def relax_stacked(problem: Problem, stacked: Stacked) -> CoupledRelaxation:
    """Solve the relaxed problem to a relative precision far below any gap worth knowing.

    Args:
        problem: A reduced problem whose lowest levels fit all limits.
        stacked: Its limits and samples.
    """
    start = relax(problem)
    scale = unit_stake(problem, start.levels)
    fits = stacked.fits_alone()
    held = first_columns(problem, start) & fits
    best = CoupledRelaxation(held.astype(np.float64), admit_none(stacked), -math.inf)
    for _ in range(ROUNDS):
        answer = solve_held(stacked, held, scale)
        if answer is None:
            return best
        share, multipliers = answer
        levels = share.argmax(axis=1)
        bound = prove_bound(stacked, multipliers, levels)
        if bound > best.bound:
            best = CoupledRelaxation(share, multipliers, bound)
        reduced = np.where(fits, reduced_loss(stacked, multipliers, levels), np.inf)
        least = np.where(held, reduced, np.inf).min(axis=1)
        better = reduced < least[:, None] - CLOSED * scale
        if not better.any():
            return CoupledRelaxation(share, best.multipliers, best.bound)
        held |= better & (reduced == reduced.min(axis=1, keepdims=True))
    return CoupledRelaxation(share, best.multipliers, best.bound)


def first_columns(problem: Problem, start: Relaxation) -> Bools:
    """The lowest levels, and the best ones at prices around that of the total budget.

    Args:
        problem: The problem.
        start: Its optimum without further limits and samples.
    """
    units = np.arange(len(problem.loss))
    held = np.zeros(problem.loss.shape, dtype=bool)
    held[:, 0] = True
    for factor in AROUND:
        paid = problem.loss + factor * start.price * problem.cost_bytes
        held[units, paid.argmin(axis=1)] = True
    return held


def admit_none(stacked: Stacked) -> Multipliers:
    """No prices, and all samples alike."""
    limits, samples = len(stacked.most_bytes), len(stacked.sample_loss)
    return admit(np.zeros(limits), np.full(samples, 1.0 / samples), stacked.tail_samples)


def unit_stake(problem: Problem, levels: Ints) -> float:
    """Loss per unit that is at stake near these levels, above 0."""
    least = problem.loss[:, -1]
    at = problem.loss[np.arange(len(levels)), levels]
    stake = float((at - least).mean())
    return stake or float(np.ptp(problem.loss)) or 1.0


def solve_held(stacked: Stacked, held: Bools, scale: float) -> tuple[Floats, Multipliers] | None:
    """Optimum over some levels: the shares, [units, levels], and prices and weights.

    There is none where the losses differ by so many powers of ten that HiGHS gives up.

    Args:
        stacked: The problem.
        held: Levels that may be used, [units, levels], with the lowest of each unit.
        scale: Loss that counts as 1.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    unit, level = np.nonzero(held)
    limits, samples = len(stacked.most_bytes), len(stacked.sample_loss)
    spent, room, byte_scale = spending(stacked, unit, level)
    loss, base = losing(stacked, unit, level, scale)
    # variables: shares, the loss that starts the tail, each sample's excess above it
    objective = np.full(len(unit) + 1 + samples, 1 / stacked.tail_samples)
    objective[: len(unit) + 1] = np.repeat((0.0, 1.0), (len(unit), 1))
    tail = np.concatenate((np.ones((samples, 1)), np.eye(samples)), axis=1)
    ones = (np.ones(len(unit)), (unit, np.arange(len(unit))))
    wholes: Any = sparse.csr_array(ones, shape=(len(held), len(objective)))
    free: Any = np.repeat(
        ((0.0, np.inf), (-np.inf, np.inf), (0.0, np.inf)), (len(unit), 1, samples), 0
    )
    answer: Any = linprog(
        objective,
        A_ub=np.block([[spent, np.zeros((limits, 1 + samples))], [loss, -tail]]),
        b_ub=np.concatenate((room, -base)),
        A_eq=wholes,
        b_eq=np.ones(len(held)),
        bounds=free,
        method="highs",
    )
    if answer.status != 0:
        return None
    share = np.zeros(held.shape)
    share[unit, level] = answer.x[: len(unit)]
    dual = -answer.ineqlin.marginals
    return share, admit(dual[:limits] * scale / byte_scale, dual[limits:], stacked.tail_samples)


def spending(stacked: Stacked, unit: Ints, level: Ints) -> tuple[Floats, Floats, Floats]:
    """Scaled bytes of some levels, [limits, columns], what there is of them, and their scale."""
    floor = np.zeros(stacked.cost_bytes.shape[1], dtype=np.int64)
    room = stacked.spare_bytes(floor)
    scale = np.maximum(room, 1).astype(np.float64)
    extra = stacked.cost_bytes[:, unit, level] - stacked.cost_bytes[:, unit, 0]
    return extra / scale[:, None], room / scale, scale


def losing(stacked: Stacked, unit: Ints, level: Ints, scale: float) -> tuple[Floats, Floats]:
    """Scaled losses of some levels, [samples, columns], and what each sample starts from."""
    base = stacked.sample_loss[:, :, -1].sum(axis=1)
    extra = stacked.sample_loss[:, unit, level] - stacked.sample_loss[:, unit, -1]
    above = np.minimum((base - base.min()) / scale, MOST_LOSS)
    return np.clip(extra / scale, -MOST_LOSS, MOST_LOSS), above
