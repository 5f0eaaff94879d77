"""The mixed-integer model: what may be left out of it, and how its answer becomes a plan."""

import math
from dataclasses import replace

import numpy as np

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.coupling import violation
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import hull_bound, relax
from kvbudget.allocator.solver import Choice
from kvbudget.allocator.status import Status
from kvbudget.allocator.terms import Bools, Terms, terms_of

from .choose import known_plan, repair
from .columns import CoupledRelaxation, relax_stacked, unit_stake
from .exchange import shrink_within
from .highs import Answer, run_whole
from .multipliers import reduced_loss
from .share_model import build_model, rule_out
from .stacked import Stacked, stack

FINE = 1e-3
"""Part of the loss between plan and bound that counts as 1, so that tolerances are far below it."""
FINEST = 1e-6
"""Part of the loss at stake per unit that counts as 1 at least."""
ATTEMPTS = 20
"""How many answers that miss a constraint by HiGHS's tolerance are ruled out one by one."""


def choose_whole(
    problem: Problem, *, seconds: float, gap: float = 0.0, among: Bools | None = None
) -> Choice:
    """Choose levels by the mixed-integer model.

    The bound and a plan of the relaxed problem come first. A level that by its price alone makes
    every plan worse than that one is left out of the model.

    Args:
        problem: A reduced problem whose lowest levels fit all limits.
        seconds: Time for HiGHS; it takes more only where no plan is known by then.
        gap: Relative gap at which HiGHS may stop.
        among: Levels to choose among, [units, levels]; all if ``None``. The bound holds for
            choices of these.
    """
    stacked, terms = stack(problem), terms_of(problem)
    relaxed = relax_stacked(problem, stacked)
    least = max(relaxed.bound, hull_bound(problem))
    known = known_plan(problem, stacked, terms, relaxed)
    if known is not None and problem.total_loss(known) <= relaxed.bound:
        return Choice(known, bound=least)
    possible = worth_a_look(problem, stacked, relaxed, known)
    if among is not None:
        possible &= among
    scale = loss_scale(problem, relaxed, known)
    model = build_model(stacked, terms, possible, scale, whole=True)
    for _ in range(ATTEMPTS):
        answer = run_whole(model, seconds=seconds, gap=gap)
        if answer.levels is None and known is None and answer.status is Status.LIMIT_REACHED:
            first = run_whole(model, plans=1)
            answer = replace(first, bound=max(first.bound, answer.bound))
        found = checked(problem, stacked, terms, relaxed, answer)
        if answer.levels is None or found is not None:
            break
        model = rule_out(model, answer.levels)
    return conclude(problem, least, answer, [plan for plan in (known, found) if plan is not None])


def worth_a_look(
    problem: Problem, stacked: Stacked, relaxed: CoupledRelaxation, known: Ints | None
) -> Bools:
    """Levels that fit alone and could be in a plan better than the known one, [units, levels]."""
    fits = stacked.fits_alone()
    if known is None:
        return fits
    reduced = reduced_loss(stacked, relaxed.multipliers, known)
    reduced -= reduced.min(axis=1, keepdims=True)
    slack = problem.total_loss(known) - relaxed.bound
    fits &= reduced <= slack * (1 + 1e-9)
    fits[np.arange(len(known)), known] = True
    return fits


def loss_scale(problem: Problem, relaxed: CoupledRelaxation, known: Ints | None) -> float:
    """Loss that is to count as 1 in the model, above 0."""
    stake = unit_stake(problem, relax(problem).levels)
    if known is None:
        # what a constraint forces may lose far more than what the budget alone forces
        return max(stake, FINEST * float(np.ptp(problem.loss)))
    return max(FINE * (problem.total_loss(known) - relaxed.bound), FINEST * stake)


def checked(
    problem: Problem, stacked: Stacked, terms: Terms, relaxed: CoupledRelaxation, answer: Answer
) -> Ints | None:
    """The plan that an answer of HiGHS stands for, int64 [units], if it stands for one."""
    if answer.levels is None:
        return None
    if terms.distinct or terms.custom:
        plan = shrink_within(stacked, relaxed.multipliers, answer.levels)
    else:
        plan = repair(stacked, relaxed, answer.levels)
    return None if violation(problem, plan) else plan


def conclude(problem: Problem, least: float, answer: Answer, plans: list[Ints]) -> Choice:
    """The best plan with the best bound.

    Args:
        problem: The problem.
        least: A bound that is proved already.
        answer: The answer of HiGHS.
        plans: Plans that honour everything.

    Raises:
        RuntimeError: If HiGHS finds only plans that miss a constraint by its tolerance.
    """
    if not plans:
        if answer.status is Status.INFEASIBLE:
            return Choice(np.zeros(len(problem.loss), dtype=np.int64), Status.INFEASIBLE, least)
        raise RuntimeError("HiGHS found only plans that miss a constraint by its tolerance.")
    best = min(plans, key=problem.total_loss)
    # a bound that a plan refutes proves nothing
    proved = answer.bound if answer.bound <= problem.total_loss(best) else -math.inf
    status = Status.FEASIBLE if answer.status is Status.INFEASIBLE else answer.status
    return Choice(best, status, max(least, proved))
