"""The checks: each takes a solver and says in one sentence what it broke."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kvbudget.allocator import Solver, Status, hull_bound
from kvbudget.allocator.reduction import reduce
from kvbudget.allocator.solve import not_honoured, solver_name

from .answers import Blame, answer, check_solution, raw_answer, reduced, slack_of
from .examples import Example, larger_problem, solver_examples
from .frozen import require_frozen_value

Examples = tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class SolverCheck:
    """One thing that every solver must hold; call it with a solver.

    Args:
        function: The check.
        count: Number of random problems, beside those that have a name.
    """

    function: Callable[[Solver, Examples], None]
    count: int

    def __call__(self, solver: Solver) -> None:
        """Try it.

        Raises:
            AssertionError: If the solver breaks it.
        """
        usable = [x for x in solver_examples(self.count) if not not_honoured(x.problem, solver)]
        self.function(solver, tuple(usable))

    def __str__(self) -> str:
        """The rule as a sentence."""
        return self.function.__name__.replace("_", " ")


def check_solver(solver: Solver, *, examples: int = 40) -> None:
    """Try everything that a solver must hold, with the first failure as the message.

    Beside the plain problem this covers whatever the solver says that it ``honours``.

    Args:
        solver: A solver object.
        examples: Number of random problems, beside about forty that have a name; fewer for a
            slow solver.

    Raises:
        AssertionError: If the solver breaks a rule; the message names the solver, the problem
            and what is wrong.
    """
    for check in solver_checks(examples=examples):
        check(solver)


def solver_checks(*, examples: int = 40) -> tuple[SolverCheck, ...]:
    """Everything that a solver must hold, one check each.

    Args:
        examples: Number of random problems, beside about forty that have a name.
    """
    return tuple(SolverCheck(function, examples) for function in CHECKS)


def it_is_a_frozen_value_that_needs_no_arguments(solver: Solver, _: Examples) -> None:
    """A frozen dataclass with defaults, equal to its copies."""
    require_frozen_value(solver)


def a_plan_fits_and_stands_between_its_bound_and_brute_force(
    solver: Solver, examples: Examples
) -> None:
    """Bytes, loss, bound and status of a solution agree with what trying every plan gives."""
    for example in examples:
        check_solution(example, answer(solver, example))


def what_it_claims_is_true(solver: Solver, examples: Examples) -> None:
    """The status and the bound that the solver itself returns, before anybody corrects them."""
    for example, problem in reduced(examples):
        choice = raw_answer(solver, example, problem)
        blame = Blame(solver_name(solver), example)
        best, slack = example.least_loss, slack_of(problem)
        blame.unless(choice.bound <= best + slack, f"its bound {choice.bound} is above {best}")
        if solver.bounds_relaxation:
            least = hull_bound(problem)
            fault = f"it `bounds_relaxation`, but {choice.bound} is below the hulls' {least}"
            blame.unless(choice.bound >= least - slack, fault)
        if choice.status is Status.OPTIMAL:
            loss = problem.total_loss(choice.levels)
            fault = f"it says OPTIMAL at a loss of {loss}, but {best} is possible"
            blame.unless(loss <= best + slack, fault)


def the_same_problem_gets_the_same_answer(solver: Solver, examples: Examples) -> None:
    """Copies of a problem, solved by copies of a solver, get equal solutions."""
    for example in examples[::2]:
        first = answer(solver, example)
        # equal, but not the same objects
        twin = Example(example.name, replace(example.problem))
        second = answer(copy.copy(solver), twin)
        fault = f"it gives {first.levels.tolist()} and then {second.levels.tolist()}"
        Blame(first.solver, example).unless(
            first == second, fault + f" with bounds {first.bound} and {second.bound}"
        )


def a_budget_for_everything_removes_all_loss(solver: Solver, examples: Examples) -> None:
    """Where nothing is scarce, nothing is lost that can be kept."""
    for example in [x for x in examples if not x.problem.constraints][::2]:
        ceiling = example.problem.ceiling_bytes
        rich = replace(example.problem, budget_bytes=ceiling)
        given = Example(f"{example.name}, budget for everything", rich)
        name = answer(solver, given).solver
        # what it says itself: solve() keeps everything anyway where everything fits
        reduction = reduce(rich)
        if reduction is None:
            continue
        levels = reduction.expand(np.asarray(solver.choose(reduction.problem).levels))
        loss = rich.total_loss(levels)
        least = rich.total_loss(np.full(len(rich.loss), rich.loss.shape[1] - 1))
        fault = f"it loses {loss} with a budget of {ceiling}, where {least} is possible"
        Blame(name, given).unless(loss <= least + slack_of(rich), fault)


def a_larger_problem_is_certified(solver: Solver, _: Examples) -> None:
    """Sixty units with twelve levels each."""
    example = Example("a larger problem", larger_problem())
    solution = answer(solver, example)
    blame = Blame(solution.solver, example)
    blame.unless(solution.used_bytes <= example.problem.budget_bytes, "it exceeds the budget")
    sound = 0 < solution.bound <= solution.loss
    blame.unless(sound, f"its bound is {solution.bound} and its loss {solution.loss}")


CHECKS = (
    it_is_a_frozen_value_that_needs_no_arguments,
    a_plan_fits_and_stands_between_its_bound_and_brute_force,
    what_it_claims_is_true,
    the_same_problem_gets_the_same_answer,
    a_budget_for_everything_removes_all_loss,
    a_larger_problem_is_certified,
)
