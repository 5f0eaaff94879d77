"""What was measured, where a problem holds repaired curves.

A problem's curves never rise: each level takes the least loss of all levels up to it. That is
right for a unit which is free to take the better, smaller level. Where it is not, because units
are tied or a solver takes the larger level anyway, only the measured loss is honest.
"""

import math

import numpy as np

from .arrays import Floats, Ints
from .curves import running_minimum
from .problem import Problem
from .risk import Mean
from .terms import terms_of


def measured_loss(problem: Problem) -> Floats:
    """Loss as measured, [units, levels]; infinite where a level is not allowed.

    It is the problem's own loss if nothing else is known, or if that was changed afterwards.
    """
    origin = problem.origin
    if origin is None or origin.loss.shape != problem.loss.shape:
        return problem.loss
    allowed = terms_of(problem).allowed
    measured = origin.loss if allowed is None else np.where(allowed, origin.loss, np.inf)
    return measured if np.array_equal(running_minimum(measured), problem.loss) else problem.loss


def measured_total(problem: Problem, levels: Ints) -> float:
    """What a choice of levels was measured to lose, under the problem's risk.

    Args:
        problem: The problem.
        levels: Level of each unit, int64 [units].
    """
    if problem.risk != Mean():
        return problem.total_loss(levels)
    return math.fsum(measured_loss(problem)[np.arange(len(levels)), levels].tolist())
