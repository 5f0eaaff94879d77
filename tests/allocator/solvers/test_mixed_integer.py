import math
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from kvbudget.allocator import CVaR, Problem, Status, WorstSample, hull_bound, solve
from kvbudget.allocator.constraints import ByteLimit, Custom, MostCapacities
from kvbudget.allocator.coupled import whole_model
from kvbudget.allocator.coupled.highs import Answer
from kvbudget.allocator.coupled.share_model import ShareModel
from kvbudget.allocator.solvers.mixed_integer import MixedInteger
from kvbudget.testing import check_solver, least_loss


def random_problem(seed: int, *constraints: Any, units: int = 6, scale: float = 1.0) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 10**6, (units, 4)), axis=1)
    loss = np.sort(rng.exponential(size=(units, 4)), axis=1)[:, ::-1] * scale
    floor, ceiling = int(cost[:, 0].sum()), int(cost[:, -1].sum())
    return Problem(loss, cost, floor + (ceiling - floor) // 3, constraints)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_its_plan_is_the_best_one_and_its_bound_next_to_it(seed: int, scale: float) -> None:
    problem = random_problem(seed, scale=scale)
    solution = solve(problem, MixedInteger())
    assert solution.loss == pytest.approx(least_loss(problem), rel=1e-12)
    assert solution.bound <= solution.loss
    assert solution.gap < 1e-7


def test_it_passes_what_every_solver_must_hold() -> None:
    assert check_solver(MixedInteger(), examples=5) is None


def test_it_closes_a_gap_that_the_hull_leaves() -> None:
    problem = random_problem(3, units=30)
    solution = solve(problem, MixedInteger())
    assert solution.bound > hull_bound(problem)
    assert solution.gap < 1e-7


def test_bytes_up_to_the_largest_are_counted_exactly() -> None:
    # one byte less than both large levels need
    most = 2**61
    problem = Problem([[9.0, 0.0], [8.0, 0.0]], [[0, most], [1, most]], 2 * most - 1)
    solution = solve(problem, MixedInteger())
    assert solution.levels.tolist() == [1, 0]


def test_a_level_far_too_large_for_the_budget_is_no_burden() -> None:
    loss = [[9.0, 1.0, 0.0], [8.0, 2.0, 0.0], [7.0, 2.0, 0.0]]
    problem = Problem(loss, [[0, 2, 2**60], [0, 3, 2**60], [0, 3, 2**60]], 5)
    solution = solve(problem, MixedInteger())
    assert solution.levels.tolist() == [1, 1, 0]
    assert solution.gap < 1e-7


def test_a_gap_that_is_allowed_stops_the_search_with_an_honest_bound() -> None:
    problem = random_problem(5, units=40)
    solution = solve(problem, MixedInteger(gap=0.5))
    exact = solve(problem, MixedInteger())
    assert solution.bound <= exact.loss <= solution.loss


def test_no_time_at_all_still_gives_a_plan() -> None:
    problem = random_problem(5, MostCapacities(2), ByteLimit("30%", layers=(0, 1)), units=12)
    solution = solve(problem, MixedInteger(seconds=1e-9))
    assert solution.status is Status.LIMIT_REACHED
    assert solution.bound <= solve(problem, MixedInteger()).loss <= solution.loss


def test_where_no_plan_is_known_in_time_it_goes_on_to_the_first() -> None:
    def balanced(share: Any) -> list[Any]:
        return [cp.sum(share[:, 0]) == cp.sum(share[:, 3]), cp.sum(share[:, 1]) == 17]

    problem = random_problem(1, Custom(balanced), units=40)
    solution = solve(problem, MixedInteger(seconds=1e-9))
    assert solution.status is Status.LIMIT_REACHED
    counts = np.bincount(solution.levels)
    assert (counts[0], counts[1]) == (counts[3], 17)
    assert solution.bound <= solve(problem, MixedInteger()).loss <= solution.loss


def test_it_proves_that_nothing_is_possible() -> None:
    def all_apart(share: Any) -> list[Any]:
        return [cp.sum(share, axis=0) <= 1]

    problem = random_problem(2, Custom(all_apart))
    assert solve(problem, MixedInteger()).status is Status.INFEASIBLE


def scripted(*answers: Answer) -> Callable[..., Answer]:
    """A HiGHS that gives these answers, one after another."""
    left = iter(answers)
    return lambda *_, **__: next(left)


def test_a_plan_slightly_over_a_limit_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem([[9.0, 8.0, 0.0], [3.0, 1.0, 0.0]], [[1, 3, 9], [1, 3, 9]], 5)
    over = Answer(Status.FEASIBLE, np.array([1, 1]), 0.0)
    monkeypatch.setattr(whole_model, "run_whole", scripted(over))
    solution = solve(problem, MixedInteger())
    assert solution.used_bytes <= 5
    assert solution.loss == 10.0


def test_a_plan_that_misses_a_constraint_is_ruled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(
        [[9.0, 1.0], [3.0, 1.0]], [[1, 3], [1, 3]], 4, (Custom(lambda share: [share[0, 0] == 1]),)
    )
    sizes = []

    def misses_at_first(model: ShareModel, **_: float) -> Answer:
        sizes.append(len(model.program.constraints))
        return Answer(Status.FEASIBLE, np.array([1, 0] if len(sizes) == 1 else [0, 1]), 0.0)

    monkeypatch.setattr(whole_model, "known_plan", lambda *_: None)
    monkeypatch.setattr(whole_model, "run_whole", misses_at_first)
    assert solve(problem, MixedInteger()).levels.tolist() == [0, 1]
    assert sizes == [sizes[0], sizes[0] + 1]


def test_answers_that_all_miss_a_constraint_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem([[1.0, 0.0]], [[1, 2]], 2, (Custom(lambda share: [share[0, 0] == 1]),))
    missing = Answer(Status.FEASIBLE, np.array([1]), 0.0)
    monkeypatch.setattr(whole_model, "known_plan", lambda *_: None)
    monkeypatch.setattr(whole_model, "run_whole", lambda *_, **__: missing)
    with pytest.raises(RuntimeError, match="only plans that miss a constraint"):
        solve(problem, MixedInteger())


@pytest.mark.parametrize("bound", [11.0, math.inf])
def test_a_bound_that_a_plan_refutes_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, bound: float
) -> None:
    problem = Problem([[9.0, 8.0, 0.0], [3.0, 1.0, 0.0]], [[1, 3, 9], [1, 3, 9]], 5)
    status = Status.INFEASIBLE if bound == math.inf else Status.FEASIBLE
    monkeypatch.setattr(whole_model, "run_whole", scripted(Answer(status, None, bound)))
    solution = solve(problem, MixedInteger())
    assert solution.loss == 10.0
    assert solution.status is Status.FEASIBLE
    assert solution.bound == pytest.approx(hull_bound(problem))


@pytest.mark.parametrize("risk", [WorstSample(), CVaR(0.5), CVaR(0.6)])
@pytest.mark.parametrize("seed", range(4))
def test_with_a_risk_its_plan_is_the_best_one(risk: CVaR | WorstSample, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = np.sort(rng.exponential(size=(6, 4, 4)), axis=2)[..., ::-1]
    cost = np.cumsum(rng.integers(1, 50, (4, 4)), axis=1)
    budget = int(cost.mean(axis=1).sum())
    problem = Problem(samples.mean(axis=0), cost, budget, sample_loss=samples, risk=risk)
    solution = solve(problem, MixedInteger())
    assert solution.loss == pytest.approx(least_loss(problem), rel=1e-12)
    assert solution.gap < 1e-6


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MixedInteger(seconds=0), ValueError, "`seconds` must be above 0, but got"),
        (lambda: MixedInteger(gap=-0.1), ValueError, "`gap` must be at least 0, but got"),
        (lambda: MixedInteger(seconds=math.nan), ValueError, "`seconds` must be finite"),
        (lambda: MixedInteger(gap="small"), TypeError, "`gap` must be a number"),  # type: ignore[arg-type]
    ],
)
def test_bad_fields_are_refused(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()
