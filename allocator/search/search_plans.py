"""Searching plans for the lowest measured value, at one budget or at all up to it."""

from typing import TYPE_CHECKING

import numpy as np

from kvbudget.allocator.coupling import lowest_fits
from kvbudget.allocator.errors import InfeasibleBudget
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.reduction import Reduction, reduce
from kvbudget.allocator.solution import refusal
from kvbudget.allocator.solver import Solver

from .kinds import check_problem, check_search
from .parameters import Parameters
from .records import records_of
from .result import SearchResult
from .run import run
from .sampler import check_front
from .targets import hull_levels
from .task import Start, Task, enough_for
from .with_budget import START_SHARES, WithBudget, at_share

if TYPE_CHECKING:
    from kvbudget.allocator.solvers.optuna_search import OptunaSearch


def search_plans(problem: Problem, search: "OptunaSearch") -> SearchResult:
    """Search the plans within a budget for the lowest value of an objective.

    With a storage it goes on where an earlier run of the same search ended.

    Args:
        problem: What to search.
        search: The objective and how to search.

    Raises:
        InfeasibleBudget: If nothing fits the budget and the constraints.
        BadFile: If the storage is not one.
        TypeError: If an argument is of another type, or the objective gives something that is not
            a number.
        ValueError: If there is an objective but no model to make plans for, the constraints
            cannot be honoured, or the study of this name belongs to something else.
    """
    check_problem(problem)
    check_search(search)
    reduction = reduce_for(problem, search)
    reduced = reduction.problem
    hull = Start(search.parameters.starts(reduced)[0], hull_levels(reduced))
    return conduct(problem, reduction, search, search.parameters, (hull,), front=False)


def search_front(problem: Problem, search: "OptunaSearch") -> SearchResult:
    """Search for plans that nothing beats in both memory and measured value.

    The budget becomes one more number to search, up to that of the problem. The plans are in
    ``front`` of the result.

    Args:
        problem: What to search.
        search: The objective and how to search; with ``NsgaII()`` or ``Tpe()`` as its sampler.

    Raises:
        InfeasibleBudget: If nothing fits the budget and the constraints.
        BadFile: If the storage is not one.
        TypeError: If an argument is of another type, or the objective gives something that is not
            a number.
        ValueError: As for :func:`search_plans`, or if the sampler knows one objective only.
    """
    check_problem(problem)
    check_search(search)
    check_front(search.sampler)
    reduction = reduce_for(problem, search)
    parameters = WithBudget(search.parameters)
    values = parameters.starts(reduction.problem)
    hulls = [hull_levels(at_share(reduction.problem, share)) for share in START_SHARES]
    starts = tuple(Start(*pair) for pair in zip(values, hulls, strict=True))
    return conduct(problem, reduction, search, parameters, starts, front=True)


def conduct(
    problem: Problem,
    reduction: Reduction,
    search: "OptunaSearch",
    parameters: Parameters,
    hulls: tuple[Start, ...],
    *,
    front: bool,
) -> SearchResult:
    """Run a study that begins with plans of the hulls.

    Args:
        problem: What to search.
        reduction: The problem without what can be worked into its menus.
        search: The objective and how to search.
        parameters: What the searched numbers mean.
        hulls: Plans of the hulls.
        front: Whether memory is a second objective.
    """
    from kvbudget.allocator.solve import solver_name

    task = Task(
        original=problem,
        reduction=reduction,
        solver=solver_name(search),
        objective=search.objective,
        parameters=parameters,
        starts=hulls + other_starts(reduction.problem, parameters, hulls),
        sampler=search.sampler,
        trials=search.trials,
        seed=search.seed,
        storage=search.storage,
        study_name=search.study_name,
        enough=-np.inf if front else enough_for(reduction.problem, search.objective),
        bytes_too=front,
    )
    return result_of(task)


def result_of(task: Task) -> SearchResult:
    """Run a study and read its trials."""
    trials, notes = run(task)
    return SearchResult(task.original, task.solver, records_of(task, trials), notes)


def other_starts(
    problem: Problem, parameters: Parameters, hulls: tuple[Start, ...]
) -> tuple[Start, ...]:
    """Starts of the parameters that stand for other levels than the plans of the hulls."""
    seen = {tuple(hull.levels.tolist()) for hull in hulls if hull.levels is not None}
    starts = [(x, parameters.levels(problem, np.array(x))) for x in parameters.starts(problem)]
    return tuple(Start(x) for x, levels in starts if tuple(levels.tolist()) not in seen)


def reduce_for(problem: Problem, solver: Solver) -> Reduction:
    """Reduce a problem that a solver is to search.

    Raises:
        InfeasibleBudget: If nothing fits the budget and the constraints.
        ValueError: If the solver cannot honour the constraints or the risk.
    """
    # that module needs all solvers, and some of them need this one
    from kvbudget.allocator.solve import check_honoured

    check_honoured(problem, solver)
    reduction = reduce(problem)
    if reduction is None or not lowest_fits(reduction.problem):
        raise InfeasibleBudget(refusal(problem))
    return reduction
