"""The best plan of a tiny problem, found without any solver."""

import math

import numpy as np

from kvbudget.allocator import Problem, terms_of
from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.coupling import violation


def least_loss(problem: Problem) -> float:
    """Least loss of all plans that fit the budget and meet the constraints, by trying every one.

    Args:
        problem: A problem with few plans; there are ``levels ** units``.

    Returns:
        The loss under the problem's risk; infinite if there is no plan.
    """
    losses = [problem.total_loss(levels) for levels in every_choice(problem)]
    return min(losses, default=math.inf)


def every_choice(problem: Problem) -> list[Ints]:
    """The levels, int64 [units], of every plan that fits and meets the constraints."""
    units, num_levels = problem.loss.shape
    choices = np.indices((num_levels,) * units).reshape(units, -1).T  # [choices, units]
    used = problem.cost_bytes[np.arange(units), choices].sum(axis=1)
    fitting = choices[used <= problem.budget_bytes]
    if not problem.constraints:
        return list(fitting)
    return [levels for levels in fitting if meets(problem, levels)]


def meets(problem: Problem, levels: Ints) -> bool:
    """Whether a choice meets all constraints of a problem."""
    terms = terms_of(problem)
    at = np.arange(len(levels)), levels
    allowed = terms.allowed is None or bool(terms.allowed[at].all())
    together = terms.group is None or all(
        len(set(levels[terms.group == group].tolist())) == 1 for group in terms.group
    )
    return allowed and together and not violation(problem, levels)
