from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from kvbudget.allocator import CVaR, Problem, Status, WorstSample, hull_bound, solve
from kvbudget.allocator.constraints import ByteLimit, Custom, MostCapacities
from kvbudget.allocator.coupled import highs, relaxed_model
from kvbudget.allocator.coupled.choose import choose_coupled
from kvbudget.allocator.solvers import Hull, LinearProgram
from kvbudget.allocator.solvers.mixed_integer import MixedInteger


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


def test_an_end_without_a_solution_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cp.Problem, "solve", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="HiGHS ended as None"):
        LinearProgram().choose(random_problem(0))


def test_the_status_is_that_of_the_rounded_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(highs.STATUSES, "optimal", Status.LIMIT_REACHED)
    assert solve(random_problem(0), LinearProgram()).status is Status.LIMIT_REACHED


def test_shares_that_a_solver_leaves_slightly_over_budget_are_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = Problem([[9.0, 1.0], [3.0, 1.0]], [[1, 3], [1, 3]], 5)
    run = relaxed_model.run_relaxed

    def over_budget(model: Any) -> highs.Answer:
        answer = run(model)
        model.share.save_value(np.array([[0.0, 1.0], [1e-12, 1.0]]))
        return answer

    monkeypatch.setattr(relaxed_model, "run_relaxed", over_budget)
    solution = solve(problem, LinearProgram())
    assert solution.levels.tolist() == [1, 0]
    assert solution.bound <= solution.loss == 4.0


@pytest.mark.parametrize("seed", range(4))
def test_with_limits_and_a_risk_its_bound_is_that_of_several_multipliers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = np.sort(rng.exponential(size=(7, 24, 6)), axis=2)[..., ::-1]
    plain = random_problem(seed)
    problem = Problem(
        samples.mean(axis=0),
        plain.cost_bytes[:24, :6],
        int(plain.cost_bytes[:24, 2].sum()),
        (ByteLimit("40%", layers=range(8)), ByteLimit("30%", layers=range(6, 20))),
        sample_loss=samples,
        risk=CVaR(0.6),
    )
    bound = LinearProgram().choose(problem).bound
    assert bound == pytest.approx(choose_coupled(problem).bound, rel=1e-6)
    solution = solve(problem, LinearProgram())
    assert bound <= solve(problem, MixedInteger(seconds=5.0)).loss <= solution.loss * (1 + 1e-12)
    assert solution.gap < 0.05


def test_one_sample_is_no_risk() -> None:
    plain = random_problem(2)
    risky = Problem(
        plain.loss,
        plain.cost_bytes,
        plain.budget_bytes,
        sample_loss=plain.loss[None],
        risk=WorstSample(),
    )
    one, other = solve(plain, LinearProgram()), solve(risky, LinearProgram())
    assert one.levels.tolist() == other.levels.tolist()
    assert one.bound == pytest.approx(other.bound, rel=1e-12)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_with_few_capacities_its_bound_is_above_the_plain_one(most: int) -> None:
    plain = random_problem(1)
    problem = Problem(plain.loss, plain.cost_bytes, plain.budget_bytes, (MostCapacities(most),))
    solution = solve(problem, LinearProgram())
    assert len(set(solution.levels.tolist())) <= most
    exact = solve(problem, MixedInteger())
    assert solution.bound <= exact.loss <= solution.loss
    if most < 3:
        assert solution.bound > hull_bound(plain) * 1.01


def test_what_no_rounding_meets_is_left_to_the_mixed_integer_program() -> None:
    def balanced(share: Any) -> list[Any]:
        # as many units at the lowest level as at the highest
        return [cp.sum(share[:, 0]) == cp.sum(share[:, -1]), cp.sum(share[:, 3]) == 7]

    plain = random_problem(3)
    problem = Problem(plain.loss, plain.cost_bytes, plain.budget_bytes, (Custom(balanced),))
    solution = solve(problem, LinearProgram())
    counts = np.bincount(solution.levels, minlength=8)
    assert counts[0] == counts[7]
    assert counts[3] == 7
    assert solution.bound <= solve(problem, MixedInteger(seconds=5.0)).loss <= solution.loss * 1.001
