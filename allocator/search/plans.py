"""From the levels of a trial to the plan that a model can run."""

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.measured import measured_total
from kvbudget.allocator.plan import Plan
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.reduction import reduce
from kvbudget.allocator.relaxation import hull_bound, used_bytes
from kvbudget.allocator.solution import Solution
from kvbudget.allocator.status import Status


def check_model(problem: Problem) -> None:
    """Refuse a problem that gives no plans to measure.

    Raises:
        ValueError: If it does not know its model.
    """
    if problem.origin is None:
        raise ValueError(
            "`objective` must be given plans of a model, but the problem knows none: it was made"
            " from arrays, or a constraint made several caches one. Make it with"
            " Problem.from_profile; under such a constraint call search_plans(problem, search)."
        )


def plan_of(problem: Problem, levels: Ints, solver: str) -> Plan:
    """The plan of a choice that fits, with its certificate.

    Args:
        problem: The problem of the model, from ``Problem.from_profile``.
        levels: Level of each unit, int64 [units].
        solver: Name of what made the choice.

    Raises:
        ValueError: If the problem does not know its model.
    """
    reduction = reduce(problem)
    loss = measured_total(problem, levels)
    bound = loss if reduction is None else min(hull_bound(reduction.problem), loss)
    return Solution.of(
        problem,
        levels,
        status=Status.LIMIT_REACHED,
        loss=loss,
        bound=bound,
        used_bytes=used_bytes(problem, levels),
        seconds=0.0,
        solver=solver,
    ).plan
