import cvxpy as cp
import numpy as np
import pytest

from kvbudget.allocator import Problem, Status, hull_bound, solve
from kvbudget.allocator.solvers import Hull, LinearProgram, linear_program


def random_problem(seed: int, scale: float = 1.0) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 10**6, (25, 8)), axis=1)
    loss = np.sort(rng.exponential(size=(25, 8)), axis=1)[:, ::-1] * scale
    floor, ceiling = int(cost[:, 0].sum()), int(cost[:, -1].sum())
    return Problem(loss, cost, floor + (ceiling - floor) * (seed + 1) // 8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_its_bound_is_that_of_the_hull(seed: int, scale: float) -> None:
    problem = random_problem(seed, scale)
    bound = LinearProgram().choose(problem).bound
    assert bound == pytest.approx(hull_bound(problem), rel=1e-5)
    assert bound <= hull_bound(problem) * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_its_plan_is_as_good_as_that_of_the_hull(seed: int) -> None:
    problem = random_problem(seed)
    ours, theirs = solve(problem, LinearProgram()), solve(problem, Hull())
    assert ours.loss == pytest.approx(theirs.loss, rel=0.02)


def test_a_budget_of_exactly_the_lowest_levels_is_not_called_infeasible() -> None:
    problem = random_problem(0)
    tight = Problem(problem.loss, problem.cost_bytes, problem.floor_bytes)
    assert solve(tight, LinearProgram()).levels.tolist() == [0] * 25


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (cp.OPTIMAL, Status.FEASIBLE),
        (cp.OPTIMAL_INACCURATE, Status.FEASIBLE),
        (cp.USER_LIMIT, Status.LIMIT_REACHED),
    ],
)
def test_the_table_speaks_of_the_rounded_plan(ended: str, status: Status) -> None:
    assert linear_program.STATUSES[ended] is status


def test_an_end_without_a_solution_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cp.Problem, "solve", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="HiGHS ended the linear program as None"):
        LinearProgram().choose(random_problem(0))


def test_shares_that_a_solver_leaves_slightly_over_budget_are_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = Problem([[9.0, 1.0], [3.0, 1.0]], [[1, 3], [1, 3]], 5)

    def over_budget(_: Problem) -> tuple[Status, object, float]:
        return Status.FEASIBLE, np.array([[0.0, 1.0], [1e-12, 1.0]]), 0.5

    monkeypatch.setattr(linear_program, "solve_relaxation", over_budget)
    solution = solve(problem, LinearProgram())
    assert solution.levels.tolist() == [1, 0]
    assert solution.bound <= solution.loss == 4.0
