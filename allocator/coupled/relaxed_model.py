"""The linear relaxation of the whole model, and how its shares become a plan."""

import numpy as np

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import relax
from kvbudget.allocator.solver import Choice
from kvbudget.allocator.status import Status
from kvbudget.allocator.terms import Bools, Terms, terms_of

from .choose import known_plan
from .columns import CoupledRelaxation, unit_stake
from .highs import run_relaxed
from .multipliers import prove_bound
from .share_model import ShareModel, build_model
from .stacked import Stacked, stack
from .whole_model import FINEST, choose_whole


def choose_relaxed(problem: Problem, *, tolerance: float, seconds: float) -> Choice:
    """Choose levels by rounding the linear relaxation.

    Args:
        problem: A reduced problem whose lowest levels fit all limits.
        tolerance: Share above which a level counts as in use.
        seconds: Time for the mixed-integer program, where no rounding honours all constraints.
    """
    stacked, terms = stack(problem), terms_of(problem)
    scale = loss_scale(problem, terms)
    model = build_model(stacked, terms, stacked.fits_alone(), scale, whole=False)
    answer = run_relaxed(model)
    if answer.status is Status.INFEASIBLE:
        return Choice(np.zeros(len(problem.loss), dtype=np.int64), Status.INFEASIBLE)
    relaxed = read_relaxation(stacked, terms, model, answer.bound)
    plan = known_plan(problem, stacked, terms, relaxed, tolerance)
    if plan is not None:
        return Choice(plan, answer.status, relaxed.bound)
    near = neighbours(relaxed.share > tolerance)
    choice = choose_whole(problem, seconds=seconds, among=near)
    if not choice.status.has_plan:
        return choose_whole(problem, seconds=seconds)
    return Choice(choice.levels, choice.status, relaxed.bound)


def loss_scale(problem: Problem, terms: Terms) -> float:
    """Loss that is to count as 1 in the model, above 0."""
    stake = unit_stake(problem, relax(problem).levels)
    forced = FINEST * float(np.ptp(problem.loss)) if terms.distinct or terms.custom else 0.0
    return max(stake, forced)


def read_relaxation(
    stacked: Stacked, terms: Terms, model: ShareModel, optimum: float
) -> CoupledRelaxation:
    """The shares of a solved model with the bound that can be proved of them.

    Args:
        stacked: Limits and samples.
        terms: The other constraints, which prices know nothing of.
        model: The solved model.
        optimum: What HiGHS proves.
    """
    share, multipliers = model.share.value, model.multipliers()
    bound = prove_bound(stacked, multipliers, share.argmax(axis=1))
    if terms.distinct or terms.custom:
        bound = max(bound, optimum)
    return CoupledRelaxation(share, multipliers, bound)


def neighbours(in_use: Bools) -> Bools:
    """Levels in use, the ones beside them, and each unit's lowest and highest, [units, levels]."""
    near = in_use.copy()
    near[:, 1:] |= in_use[:, :-1]
    near[:, :-1] |= in_use[:, 1:]
    near[:, [0, -1]] = True
    return near
