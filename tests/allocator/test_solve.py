import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import (
    Choice,
    InfeasibleBudget,
    Plan,
    Problem,
    Profile,
    Solver,
    Status,
    Tokens,
    allocate,
    hull_bound,
    solve,
)
from kvbudget.allocator.solvers import Hull, LinearProgram, Uniform

PROBLEM = Problem([[9.0, 5.0, 2.0], [8.0, 4.0, 1.0]], [[1, 2, 4], [1, 2, 4]], 5)


@dataclass(frozen=True, slots=True, eq=False)
class Fixed(Solver):
    """Answers what it is told to."""

    answer: Choice

    def choose(self, problem: Problem) -> Choice:
        return self.answer


@dataclass(frozen=True, slots=True)
class Faulty(Solver):
    """Raises."""

    def choose(self, problem: Problem) -> Choice:
        raise ZeroDivisionError("a fault of its own")


@dataclass(frozen=True, slots=True)
class Slow(Solver):
    """Takes a while."""

    def choose(self, problem: Problem) -> Choice:
        time.sleep(0.02)
        return Choice(np.array([0, 0]))


def answer(levels: Any, status: Status = Status.FEASIBLE, bound: float = -math.inf) -> Solver:
    return Fixed(Choice(levels, status, bound))


def test_loss_and_bytes_are_those_of_the_levels() -> None:
    solution = solve(PROBLEM, answer(np.array([0, 2])))
    assert solution.levels.tolist() == [0, 2]
    assert solution.levels.dtype == np.int64
    assert (solution.loss, solution.used_bytes) == (10.0, 5)
    assert solution.problem is PROBLEM


def test_the_best_plan_is_optimal_only_if_the_bound_proves_it() -> None:
    # 1 + 1 + 1 + 2 bytes: the relaxation buys half of the last segment
    open_gap = solve(PROBLEM, Hull())
    assert open_gap.loss == 9.0
    assert open_gap.bound == pytest.approx(7.5)
    assert open_gap.gap == pytest.approx(1.5 / 9)
    assert open_gap.status is Status.FEASIBLE
    closed = solve(Problem(PROBLEM.loss, PROBLEM.cost_bytes, 4), Hull())
    assert closed.loss == closed.bound == 9.0
    assert closed.gap == 0.0
    assert closed.status is Status.OPTIMAL


def test_a_solver_that_proves_more_than_the_hull_is_believed() -> None:
    solution = solve(PROBLEM, answer(np.array([1, 1]), bound=9.0))
    assert (solution.bound, solution.gap, solution.status) == (9.0, 0.0, Status.OPTIMAL)
    solution = solve(PROBLEM, answer(np.array([1, 1]), bound=8.0))
    assert (solution.bound, solution.status) == (8.0, Status.FEASIBLE)


def test_a_solver_that_proves_nothing_gets_the_bound_of_the_hull() -> None:
    solution = solve(PROBLEM, answer(np.array([0, 0])))
    assert solution.bound == hull_bound(PROBLEM)
    assert solution.gap == pytest.approx((17 - 7.5) / 17)


def test_a_claim_of_optimality_needs_a_bound() -> None:
    assert solve(PROBLEM, answer(np.array([1, 1]), Status.OPTIMAL)).status is Status.FEASIBLE


def test_a_limit_is_reported_unless_the_plan_is_proved_optimal() -> None:
    limit = Status.LIMIT_REACHED
    assert solve(PROBLEM, answer(np.array([1, 1]), limit)).status is limit
    assert solve(PROBLEM, answer(np.array([1, 1]), limit, 9.0)).status is Status.OPTIMAL


def test_rounding_in_a_bound_does_not_open_or_break_the_gap() -> None:
    for bound in (9.0 * (1 + 1e-15), 9.0 * (1 - 1e-14)):
        solution = solve(PROBLEM, answer(np.array([1, 1]), bound=bound))
        assert (solution.bound, solution.gap) == (9.0, 0.0)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (answer(np.array([2, 2])), "Fixed.* broke its contract: it uses 8 bytes of 5"),
        (answer(np.array([0, 3])), "levels must be in 0..2, but are in 0..3"),
        (answer(np.array([-1, 0])), "levels must be in 0..2, but are in -1..0"),
        (answer(np.array([0])), "levels must be 2 integers"),
        (answer(np.array([0.0, 1.0])), "levels must be 2 integers, but are float64"),
        (answer(np.array([True, False])), "levels must be 2 integers, but are bool"),
        (answer(np.array([0, 0]), bound=17.1), "its bound 17.1 is above the loss 17.0"),
        (answer(np.array([0, 0]), bound=math.nan), "its bound nan is above"),
        (answer(np.array([0, 0]), Status.INFEASIBLE), "found no plan, but the lowest fits"),
    ],
)
def test_a_solver_that_breaks_its_contract_is_named(solver: Solver, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        solve(PROBLEM, solver)


def test_an_error_inside_a_solver_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError, match="a fault of its own"):
        solve(PROBLEM, Faulty())


def test_an_infeasible_problem_never_reaches_the_solver() -> None:
    solution = solve(Problem(PROBLEM.loss, PROBLEM.cost_bytes, 1), Faulty())
    assert solution.status is Status.INFEASIBLE
    with pytest.raises(
        InfeasibleBudget, match=r"No plan fits 1 B: the smallest needs 2 B \(2 units"
    ):
        _ = solution.plan


def test_the_time_is_that_of_the_solver() -> None:
    assert 0.02 <= solve(PROBLEM, Slow()).seconds < 10


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Hull, r"but got the class Hull\. Pass Hull\(\)\."),
        ("hull", r"such as Hull\(\), but got 'hull'"),
        (None, "but got None"),
    ],
)
def test_a_solver_must_be_an_object(profile: Profile, solver: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        solve(PROBLEM, solver)
    with pytest.raises(TypeError, match=message):
        allocate(profile, budget=1, context_tokens=10, solver=solver)


def test_only_a_problem_can_be_solved(profile: Profile) -> None:
    with pytest.raises(TypeError, match="`problem` must be a Problem"):
        solve(profile, Hull())  # type: ignore[arg-type]


def test_the_name_of_a_solver_shows_what_differs_from_the_default() -> None:
    assert solve(PROBLEM, Hull()).solver == "Hull"
    assert solve(PROBLEM, LinearProgram()).solver == "LinearProgram"
    name = solve(PROBLEM, LinearProgram(tolerance=1e-6)).solver
    assert name == "LinearProgram(tolerance=1e-06)"


def test_a_solver_need_not_be_a_dataclass() -> None:
    class Lowest(Solver):
        def choose(self, problem: Problem) -> Choice:
            return Choice(np.zeros(len(problem.loss), dtype=np.int32))

    assert solve(PROBLEM, Lowest()).solver == "Lowest"


def test_allocating_is_solving_with_the_hull(profile: Profile, problem: Problem) -> None:
    plan = allocate(profile, budget="40%", context_tokens=100)
    assert isinstance(plan, Plan)
    assert plan == solve(problem, Hull()).plan


def test_allocating_everything_keeps_everything(profile: Profile) -> None:
    plan = allocate(profile, budget="100%", context_tokens=100, batch_size=3)
    assert plan.capacity_tokens.tolist() == [[100, 100], [16, 16], [100, 100]]
    assert (plan.loss, plan.gap) == (0.0, 0.0)


def test_a_budget_of_equal_shares_is_met_by_uniform(profile: Profile) -> None:
    plan = allocate(profile, budget=Tokens(25), context_tokens=100, solver=Uniform())
    assert plan.capacity_tokens.tolist() == [[25, 25], [16, 16], [25, 25]]


def test_more_budget_loses_less_on_measured_curves(profile: Profile) -> None:
    budgets = [f"{share}%" for share in range(12, 101, 4)]
    losses = [allocate(profile, budget=b, context_tokens=1000).bound for b in budgets]
    assert losses == sorted(losses, reverse=True)


def test_losses_below_zero_have_a_gap_by_magnitude() -> None:
    problem = Problem([[-1.0, -2.0, -4.0]], [[1, 2, 3]], 2)
    solution = solve(problem, Hull())
    assert solution.loss == -2.0
    assert solution.bound == pytest.approx(-2.5)
    assert solution.gap == pytest.approx(0.2)


def test_where_memory_is_free_everything_is_kept(make_profile: Any) -> None:
    loss = np.broadcast_to([3.0, 1.0, 0.0, 0.0], (3, 2, 4))
    useless = make_profile(loss=loss)
    plan = allocate(useless, budget="100%", context_tokens=100)
    assert plan.capacity_tokens.tolist() == [[100, 100], [16, 16], [100, 100]]
    half = allocate(useless, budget="60%", context_tokens=100)
    assert half.capacity_tokens.tolist() == [[50, 50], [16, 16], [50, 50]]
