"""One price per limit and one weight per sample: the fast way through coupled problems.

The relaxed problem with several limits and samples gives prices, weights and a bound. Its shares
are rounded in several ways, repaired within all limits, filled, and bettered by exchanges; the
best plan is kept.
"""

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.coupling import violation
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import hull_bound
from kvbudget.allocator.risk import Mean
from kvbudget.allocator.solver import Choice
from kvbudget.allocator.terms import Terms, terms_of

from .columns import CoupledRelaxation, relax_stacked
from .exchange import exchange, fill_within, shrink_within, trim_within
from .kinds import choose_kinds
from .stacked import Stacked, stack

IN_USE = 1e-9
"""Share above which a level counts as in use."""


def choose_coupled(problem: Problem) -> Choice:
    """Choose levels within all byte limits of a reduced problem, under its risk.

    Args:
        problem: A reduced problem whose lowest levels fit all limits.
    """
    stacked = stack(problem)
    relaxed = relax_stacked(problem, stacked)
    bound = max(relaxed.bound, hull_bound(problem))
    return Choice(round_within(stacked, relaxed), bound=bound)


def relaxed_bound(problem: Problem) -> float:
    """Loss that no plan within the budget and all byte limits can beat, under the risk.

    Args:
        problem: A reduced problem whose lowest levels fit all limits.
    """
    if problem.risk == Mean() and not terms_of(problem).limits:
        return hull_bound(problem)
    return max(relax_stacked(problem, stack(problem)).bound, hull_bound(problem))


def known_plan(
    problem: Problem,
    stacked: Stacked,
    terms: Terms,
    relaxed: CoupledRelaxation,
    tolerance: float = IN_USE,
) -> Ints | None:
    """A plan near a relaxed optimum, int64 [units], if rounding finds one that honours all."""
    plan: Ints | None
    if terms.distinct:
        plan = choose_kinds(stacked, relaxed.multipliers, terms.distinct, relaxed.share)
    else:
        plan = round_within(stacked, relaxed, tolerance)
    return None if plan is None or violation(problem, plan) else plan


def round_within(stacked: Stacked, relaxed: CoupledRelaxation, tolerance: float = IN_USE) -> Ints:
    """The best of several roundings of relaxed shares, int64 [units], within every limit."""
    starts = ((relaxed.share > tolerance).argmax(axis=1), relaxed.share.argmax(axis=1))
    plans = [repair(stacked, relaxed, levels) for levels in starts]
    return min(plans, key=lambda levels: stacked.risk(stacked.totals(levels)))


def repair(stacked: Stacked, relaxed: CoupledRelaxation, levels: Ints) -> Ints:
    """A plan within every limit from levels near the relaxed optimum, int64 [units]."""
    multipliers = relaxed.multipliers
    levels = trim_within(stacked, shrink_within(stacked, multipliers, levels))
    levels = fill_within(stacked, multipliers, levels)
    return trim_within(stacked, exchange(stacked, multipliers, levels))
