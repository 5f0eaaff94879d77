"""Asking a solver, and comparing what it says with brute force."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from kvbudget.allocator import Choice, Problem, Solution, Solver, Status, solve
from kvbudget.allocator.coupling import lowest_fits
from kvbudget.allocator.reduction import reduce
from kvbudget.allocator.solve import check_choice, check_status, solver_name

from .examples import Example

TOLERANCE = 1e-9
"""By which share of the losses at hand a loss or a bound may be off."""


@dataclass(frozen=True, slots=True)
class Blame:
    """Who did what to which problem.

    Args:
        name: Name of the solver.
        example: The problem.
    """

    name: str
    example: Example

    def unless(self, holds: bool, fault: str) -> None:
        """Say what is wrong unless all is well.

        Raises:
            AssertionError: If it is not.
        """
        require(holds, self.sentence(fault))

    def sentence(self, fault: str) -> str:
        """Name the solver, what is wrong, and the problem."""
        return f"{self.name} failed: {fault}. The problem is {self.example}"


def require(holds: bool, sentence: str) -> None:
    """Fail with a sentence, also where Python leaves out assertions.

    Raises:
        AssertionError: If it does not hold.
    """
    if not holds:
        raise AssertionError(sentence)


def answer(solver: Solver, example: Example) -> Solution:
    """Solve an example, which must neither fail nor change the problem.

    Raises:
        AssertionError: If it does.
    """
    # a copy, so that a solver that changes it spoils nobody else's example
    problem = replace(example.problem)
    blame = Blame(solver_name(solver), example)
    try:
        solution = solve(problem, solver)
    except Exception as error:
        raise AssertionError(blame.sentence(raised(error))) from error
    blame.unless(contents(problem) == contents(example.problem), "it changed the problem")
    return solution


def raised(error: Exception) -> str:
    """Name an error and what it says."""
    return f"it raised {type(error).__name__}: {error}".rstrip(".: ")


def contents(problem: Problem) -> tuple[object, ...]:
    """What must not change: the numbers, and that they cannot be written to."""
    arrays = (problem.loss, problem.cost_bytes)
    return (*(x.tobytes() for x in arrays), *(x.flags.writeable for x in arrays))


def raw_answer(solver: Solver, example: Example, problem: Problem) -> Choice:
    """What the solver itself returns for a reduced problem.

    Raises:
        AssertionError: If it fails.
    """
    blame = Blame(solver_name(solver), example)
    try:
        choice = solver.choose(problem)
        if check_status(problem, choice, blame.name).has_plan:
            check_choice(problem, choice, blame.name)
    except Exception as error:
        raise AssertionError(blame.sentence(raised(error))) from error
    return choice


def reduced(examples: Iterable[Example]) -> Iterator[tuple[Example, Problem]]:
    """Examples that a solver is asked at all, with the problem that it sees."""
    for example in examples:
        reduction = reduce(replace(example.problem))
        if reduction is not None and lowest_fits(reduction.problem):
            yield example, reduction.problem


def check_solution(example: Example, solution: Solution) -> None:
    """Compare one solution with brute force.

    Raises:
        AssertionError: If they contradict each other.
    """
    problem, best = example.problem, example.least_loss
    blame = Blame(solution.solver, example)
    if not solution.status.has_plan or math.isinf(best):
        agree = math.isinf(best) and not solution.status.has_plan
        blame.unless(agree, f"it ends as {solution.status.name}, where the best plan loses {best}")
        return
    slack = slack_of(problem)
    at = np.arange(len(solution.levels)), solution.levels
    used = sum(problem.cost_bytes[at].tolist())
    blame.unless(used <= problem.budget_bytes, f"it uses {used} bytes")
    blame.unless(solution.loss >= best - slack, f"its loss {solution.loss} is below {best}")
    blame.unless(solution.bound <= best + slack, f"its bound {solution.bound} is above {best}")
    blame.unless(solution.bound <= solution.loss, f"its bound {solution.bound} is above its loss")
    if solution.status is Status.OPTIMAL:
        fault = f"it ends as OPTIMAL at a loss of {solution.loss}, but {best} is possible"
        blame.unless(solution.loss <= best + slack, fault)


def slack_of(problem: Problem) -> float:
    """By how much a loss or a bound may be off."""
    finite = np.where(np.isfinite(problem.loss), np.abs(problem.loss), 0.0)
    return TOLERANCE * float(finite.max(axis=1).sum())
