from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from kvbudget.allocator import Problem, Solver, Status, solve
from kvbudget.allocator.constraints import Custom
from kvbudget.allocator.reduction import reduce
from kvbudget.allocator.solvers.linear_program import LinearProgram
from kvbudget.allocator.solvers.mixed_integer import MixedInteger

both = pytest.mark.parametrize("solver", [LinearProgram(), MixedInteger()], ids=repr)


def asked(function: Any, budget: int = 7) -> Problem:
    return Problem([[9.0, 5.0, 1.0]] * 3, [[1, 2, 3]] * 3, budget, (Custom(function),))


@both
def test_a_number_of_units_at_the_top(solver: Solver) -> None:
    solution = solve(asked(lambda share: [cp.sum(share[:, -1]) >= 2]), solver)
    assert sorted(solution.levels.tolist()) == [0, 2, 2]


@both
def test_what_cannot_be_is_a_status(solver: Solver) -> None:
    solution = solve(asked(lambda share: [cp.sum(share[:, -1]) >= 3]), solver)
    assert solution.status is Status.INFEASIBLE
    assert "it misses a custom constraint by 3" in str(solution)


@both
def test_what_only_mixed_levels_could_meet_is_infeasible(solver: Solver) -> None:
    solution = solve(asked(lambda share: [share[0, 0] == 0.5]), solver)
    assert solution.status is Status.INFEASIBLE


@both
def test_a_distance_between_two_units(solver: Solver) -> None:
    def no_apart(share: Any) -> list[Any]:
        return [cp.abs((share[0] - share[1]) @ np.arange(3)) <= 0]

    solution = solve(asked(no_apart, 5), solver)
    assert solution.levels[0] == solution.levels[1]
    assert solution.loss == pytest.approx(19.0)


@both
@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda share: None, TypeError, "`function` must return a list of constraints, but got N"),
        (lambda share: cp.sum(share) >= 1, TypeError, "must return a list of constraints"),
        (lambda share: [True], TypeError, "must return cvxpy constraints, but got True"),
        (lambda share: [cp.norm1(share) >= 1], ValueError, "linear, or convex and piecewise"),
        (lambda share: [cp.norm(share, 2) <= 9], ValueError, "linear, or convex and piecewise"),
    ],
)
def test_a_function_that_makes_no_linear_constraints_is_refused(
    solver: Solver, function: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        solve(asked(function), solver)


@both
def test_an_empty_list_asks_for_nothing(solver: Solver) -> None:
    assert solve(asked(lambda share: []), solver).loss == pytest.approx(11.0)


@pytest.mark.parametrize("function", [None, "x <= 1", 3])
def test_a_function_must_be_one(function: Any) -> None:
    with pytest.raises(TypeError, match="`function` must be a function, but got"):
        Custom(function)


@both
def test_it_speaks_of_the_levels_of_the_problem_also_where_menus_were_rewritten(
    solver: Solver,
) -> None:
    seen = []

    def second_level_once(share: Any) -> list[Any]:
        seen.append(share.shape)
        return [cp.sum(share[:, 1]) == 1]

    # the lowest levels are forbidden, so another level stands in their place
    loss = [[np.inf, 5.0, 1.0], [np.inf, np.inf, 2.0], [9.0, 4.0, 3.0]]
    problem = Problem(loss, [[1, 2, 3]] * 3, 9, (Custom(second_level_once),))
    solution = solve(problem, solver)
    assert solution.levels.tolist() == [2, 2, 1]
    assert set(seen) == {(3, 3)}
    assert reduce(problem) is not None
