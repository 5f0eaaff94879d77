"""One run of HiGHS on a share model, and what its answer is worth.

HiGHS works in floating point and takes a condition for met within a millionth. Its levels are
therefore suggestions that the caller checks, and its bound is lowered by what the tolerances may
have gained.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.status import Status

from .share_model import ShareModel

TOLERANCE = 1e-6
"""Part of the loss scale by which HiGHS may err in each unit, or stop short of the best."""
FEASIBLE_POINT = 2
"""What HiGHS calls a solution that meets all conditions."""
NO_LIMIT = 2**31 - 1

STATUSES = {
    "optimal": Status.FEASIBLE,
    "optimal_inaccurate": Status.FEASIBLE,
    "user_limit": Status.LIMIT_REACHED,
    "infeasible": Status.INFEASIBLE,
}
"""What cvxpy's status says about the plan; that it is optimal is for the bound to show."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """How a run on a model of whole levels ended.

    Args:
        status: How.
        levels: Level of each unit, int64 [units], or ``None`` if HiGHS found none.
        bound: Loss that no choice of the model can beat.
    """

    status: Status
    levels: Ints | None
    bound: float


def run_whole(
    model: ShareModel, *, seconds: float = np.inf, gap: float = 0.0, plans: int = NO_LIMIT
) -> Answer:
    """Run HiGHS on a model of whole levels.

    Args:
        model: The model.
        seconds: Time after which it stops.
        gap: Relative distance from its bound at which it stops.
        plans: Number of plans, each better than the last, after which it stops.
    """
    status = run(model, seconds, gap, plans)
    if status is Status.INFEASIBLE:
        return Answer(status, None, np.inf)
    info = model.program.solver_stats.extra_stats
    found = info.primal_solution_status == FEASIBLE_POINT
    levels = model.share.value.argmax(axis=1) if found else None
    return Answer(status, levels, model.loss(info.mip_dual_bound - margin(model)))


def run_relaxed(model: ShareModel) -> Answer:
    """Run HiGHS on a model whose units may mix levels; the answer has no levels."""
    status = run(model)
    if status is Status.INFEASIBLE:
        return Answer(status, None, np.inf)
    optimum = float(model.program.value)
    return Answer(status, None, model.loss(optimum - margin(model) - TOLERANCE * abs(optimum)))


def run(
    model: ShareModel, seconds: float = np.inf, gap: float = 0.0, plans: int = NO_LIMIT
) -> Status:
    """Run HiGHS and say how it ended.

    Args:
        model: The model.
        seconds: Time after which it stops.
        gap: Relative gap at which it stops, where levels are whole.
        plans: Number of plans after which it stops, where levels are whole.

    Raises:
        RuntimeError: If it ends in no way that an honest model can.
    """
    import cvxpy as cp

    program: Any = model.program
    with warnings.catch_warnings():
        # cvxpy warns of an answer that a limit cut short, and of bounds that do not exist
        warnings.simplefilter("ignore")
        program.solve(
            solver=cp.HIGHS,
            time_limit=seconds,
            # by its own choice HiGHS stops at a gap of one part in 10,000
            mip_rel_gap=gap,
            mip_abs_gap=0.0,
            mip_max_improving_sols=plans,
        )
    if program.status not in STATUSES:
        raise RuntimeError(f"HiGHS ended as {program.status}.")
    return STATUSES[program.status]


def margin(model: ShareModel) -> float:
    """What the tolerances may have gained, in the unit of the objective."""
    units: int = model.share.shape[0]
    return TOLERANCE * (units + 1)
