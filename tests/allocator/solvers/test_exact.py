import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, kron

from kvbudget.allocator import Problem, Solution, Status, hull_bound, solve
from kvbudget.allocator.knapsack.core import Core
from kvbudget.allocator.knapsack.search import Outcome, search
from kvbudget.allocator.solvers import Exact, Hull, exact

Array = np.ndarray[Any, Any]


def lengths(problem: Problem) -> tuple[int, int]:
    units, levels = problem.loss.shape
    return units, levels


def brute_force(problem: Problem) -> Fraction:
    """Least loss of all plans that fit, each one tried, in exact fractions."""
    units, levels = lengths(problem)
    cost, loss = problem.cost_bytes.tolist(), problem.loss.tolist()
    fitting = (
        sum(Fraction(loss[unit][level]) for unit, level in enumerate(choice))
        for choice in itertools.product(range(levels), repeat=units)
        if sum(cost[unit][level] for unit, level in enumerate(choice)) <= problem.budget_bytes
    )
    return min(fitting)


def table_optimum(problem: Problem) -> Fraction:
    """Least loss by a table over every number of bytes up to the budget, in exact fractions."""
    best: list[Fraction | None] = [Fraction(0)] * (problem.budget_bytes + 1)
    for cost, loss in zip(problem.cost_bytes.tolist(), problem.loss.tolist(), strict=True):
        row: list[Fraction | None] = []
        for budget in range(problem.budget_bytes + 1):
            reached = [
                before + Fraction(what)
                for price, what in zip(cost, loss, strict=True)
                if price <= budget and (before := best[budget - price]) is not None
            ]
            row.append(min(reached, default=None))
        best = row
    answer = best[-1]
    assert answer is not None
    return answer


def mixed_integer_optimum(problem: Problem) -> float:
    """Least loss by HiGHS with no gap allowed."""
    units, levels = lengths(problem)
    one_level = csr_array(kron(np.eye(units), np.ones((1, levels))))
    limits = [
        LinearConstraint(one_level, 1, 1),
        LinearConstraint(problem.cost_bytes.reshape(1, -1), ub=problem.budget_bytes),
    ]
    answer: Any = milp(
        problem.loss.ravel(),
        constraints=limits,
        integrality=np.ones(units * levels),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    assert answer.status == 0
    chosen = answer.x.reshape(units, levels).argmax(axis=1)
    assert problem.cost_bytes[np.arange(units), chosen].sum() <= problem.budget_bytes
    return float(problem.loss[np.arange(units), chosen].sum())


def check(problem: Problem, optimum: Fraction) -> Solution:
    """Assert that the answer is the optimum, fits, and is proved."""
    solution = solve(problem, Exact())
    cost, loss = problem.cost_bytes.tolist(), problem.loss.tolist()
    levels = list(enumerate(solution.levels.tolist()))
    assert sum(cost[unit][level] for unit, level in levels) <= problem.budget_bytes
    lost = sum((Fraction(loss[unit][level]) for unit, level in levels), Fraction(0))
    assert optimum <= lost <= optimum + abs(optimum) * Fraction(1, 10**13)
    assert solution.status is Status.OPTIMAL
    assert solution.gap == 0.0
    assert solution.bound == solution.loss == pytest.approx(float(optimum), rel=1e-12)
    return solution


@st.composite
def problems(draw: st.DrawFn, most_bytes: int = 9) -> Problem:
    """Feasible problems with ties, flat stretches, free upgrades, bumps and equal units."""
    units, levels = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    steps = st.lists(st.integers(0, most_bytes), min_size=levels, max_size=levels)
    drops = st.lists(st.integers(0, 9), min_size=levels, max_size=levels)
    many = {"min_size": units, "max_size": units}
    same = draw(st.booleans())
    cost = np.cumsum([draw(steps)] * units if same else draw(st.lists(steps, **many)), axis=1)
    drop = np.cumsum([draw(drops)] * units if same else draw(st.lists(drops, **many)), axis=1)
    scale = draw(st.sampled_from([1.0, 1.0, 0.1, 1 / 3, 1e-9, 1e6]))
    floor = sum(cost[:, 0].tolist())
    spare = sum(cost[:, -1].tolist()) - floor
    extra = draw(st.one_of(st.sampled_from([0, 1, spare, spare + 1]), st.integers(0, spare + 2)))
    return Problem((drop[:, -1:] - drop) * scale, cost, floor + extra)


@settings(deadline=None, max_examples=200)
@given(problems())
def test_it_finds_what_brute_force_finds(problem: Problem) -> None:
    check(problem, brute_force(problem))


@settings(deadline=None, max_examples=100)
@given(problems())
def test_it_finds_what_a_table_over_all_bytes_finds(problem: Problem) -> None:
    check(problem, table_optimum(problem))


@settings(deadline=None, max_examples=100)
@given(problems(most_bytes=2**62 // 25))
def test_bytes_near_the_largest_integers_are_counted_exactly(problem: Problem) -> None:
    check(problem, brute_force(problem))


@pytest.mark.parametrize("budget", [2**62 - 1, 2**62 - 2, 2**62 - 3])
def test_one_byte_decides_where_floats_cannot_tell(budget: int) -> None:
    # both upgrades together fit exactly 2**62 - 1 bytes; in floats all these budgets are equal
    half = 2**61
    problem = Problem([[9.0, 1.0], [5.0, 0.0]], [[0, half], [0, half - 1]], budget)
    assert check(problem, brute_force(problem)).loss == (1.0 if budget == 2**62 - 1 else 6.0)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_losses_below_zero_and_of_mixed_sign_are_no_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss = -np.sort(rng.integers(-9, 9, (4, 4)), axis=1).astype(np.float64)
    cost = np.cumsum(rng.integers(0, 9, (4, 4)), axis=1)
    budget = int(rng.integers(cost[:, 0].sum(), cost[:, -1].sum() + 1))
    problem = Problem(loss, cost, budget)
    check(problem, brute_force(problem))


def random_problem(seed: int, units: int, levels: int, share: float) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 1000, (units, levels)), axis=1)
    loss = np.sort(rng.exponential(size=(units, levels)), axis=1)[:, ::-1]
    return with_share(loss, cost, share)


def with_share(loss: Array, cost: Array, share: float) -> Problem:
    floor, ceiling = int(cost[:, 0].sum()), int(cost[:, -1].sum())
    return Problem(loss, cost, floor + int(share * (ceiling - floor)))


@pytest.mark.parametrize("share", [0.05, 0.35, 0.9])
@pytest.mark.parametrize(("units", "levels"), [(60, 12), (256, 32)])
def test_it_loses_what_mixed_integer_programming_loses(
    units: int, levels: int, share: float
) -> None:
    problem = random_problem(units, units, levels, share)
    solution = solve(problem, Exact())
    assert solution.status is Status.OPTIMAL
    assert solution.loss == pytest.approx(mixed_integer_optimum(problem), rel=1e-9)
    assert solution.bound > hull_bound(problem)


def measured_like(seed: int) -> Problem:
    """Every cache has the same menu, in whole tokens of the same size."""
    rng = np.random.default_rng(seed)
    cost = np.broadcast_to(np.cumsum(rng.integers(1, 20, 24)) * 4096, (96, 24))
    scale = rng.lognormal(size=(96, 1))
    return with_share(scale * np.sort(rng.exponential(size=(96, 24)))[:, ::-1], cost, 0.3)


def smooth(seed: int) -> Problem:
    """Power laws over irregular menus."""
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 10**6, (200, 40)), axis=1)
    power = rng.uniform(0.3, 2, (200, 1))
    return with_share(rng.lognormal(size=(200, 1)) / (1 + np.arange(40)) ** power, cost, 0.4)


def subset_sum(seed: int) -> Problem:
    """Loss is exactly what is not spent: no price tells one level from another."""
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 1000, (100, 20)), axis=1)
    return with_share((cost[:, -1:] - cost).astype(np.float64), cost, 0.7)


def equal_units(seed: int) -> Problem:
    """Two hundred times the same curve."""
    rng = np.random.default_rng(seed)
    cost = np.broadcast_to(np.cumsum(rng.integers(1, 1000, 16)), (200, 16))
    loss = np.broadcast_to(np.sort(rng.exponential(size=16))[::-1], (200, 16))
    return with_share(loss, cost, 0.3)


@pytest.mark.parametrize("make", [measured_like, smooth, subset_sum, equal_units])
@pytest.mark.parametrize("seed", range(3))
def test_it_proves_its_answer_on_problems_of_every_kind(make: Any, seed: int) -> None:
    problem = make(seed)
    solution = solve(problem, Exact())
    assert solution.status is Status.OPTIMAL
    assert solution.bound == solution.loss >= hull_bound(problem)


@pytest.mark.parametrize("seed", range(2))
def test_of_integer_curves_it_finds_what_a_table_over_all_bytes_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(0, 4, (12, 8)), axis=1)
    loss = np.cumsum(rng.integers(0, 9, (12, 8))[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
    for budget in range(int(cost[:, 0].sum()), int(cost[:, -1].sum()) + 1, 11):
        problem = Problem(loss, cost, budget)
        check(problem, table_optimum(problem))


@pytest.mark.parametrize("seed", range(3))
def test_more_budget_never_means_more_loss(seed: int) -> None:
    problem = random_problem(seed, 30, 10, 0.0)
    budgets = range(problem.floor_bytes, problem.ceiling_bytes, 997)
    found = [
        solve(Problem(problem.loss, problem.cost_bytes, budget), Exact()).loss for budget in budgets
    ]
    assert all(later <= earlier for earlier, later in itertools.pairwise(found))


def test_ties_are_broken_the_same_way_every_time() -> None:
    for problem in (equal_units(0), subset_sum(0)):
        first, second = solve(problem, Exact()), solve(problem, Exact())
        assert first == second
        assert first.levels.tolist() == second.levels.tolist()


def strongly_tied(seed: int) -> Problem:
    """Loss nearly proportional to bytes, which needs many partial plans."""
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 1000, (80, 40)), axis=1)
    return with_share(cost[:, -1:] - cost + 10.0 * np.arange(40)[::-1], cost, 0.6)


def test_a_limit_gives_a_plan_and_an_honest_bound() -> None:
    problem = strongly_tied(1)
    full, cut = solve(problem, Exact()), solve(problem, Exact(most_states=1))
    assert full.status is Status.OPTIMAL
    assert cut.status is Status.LIMIT_REACHED
    assert hull_bound(problem) <= cut.bound <= full.loss <= cut.loss
    assert cut.used_bytes <= problem.budget_bytes
    assert cut == solve(problem, Exact(most_states=1))


def test_all_passes_share_the_states_that_may_be_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, examined = [], []

    def spy(core: Core, best: int, tolerance: int, width: int, states: int, **how: bool) -> Outcome:
        outcome = search(core, best, tolerance, width, states, **how)
        allowed.append(states)
        examined.append(outcome.examined)
        return outcome

    monkeypatch.setattr(exact, "search", spy)
    solve(strongly_tied(1), Exact(most_states=1_000_000))
    assert len(allowed) > 1
    assert allowed[0] == 1_000_000
    assert np.diff(allowed).tolist() == [-number for number in examined[:-1]]


@pytest.mark.parametrize("seed", range(4))
def test_a_tolerance_is_kept_and_spares_work(seed: int) -> None:
    problem = strongly_tied(seed)
    best = solve(problem, Exact())
    near = solve(problem, Exact(tolerance=1e-4))
    assert near.bound <= best.loss <= near.loss
    assert near.gap <= 1e-4
    assert near.status in (Status.FEASIBLE, Status.OPTIMAL)


def test_a_wide_tolerance_takes_the_first_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(5, 40, 10, 0.4)
    monkeypatch.delattr(exact, "search")
    solution = solve(problem, Exact(tolerance=0.5))
    assert solution.status is Status.FEASIBLE
    assert solution.levels.tolist() == solve(problem, Hull()).levels.tolist()


def test_losses_of_very_different_size_are_all_decided() -> None:
    loss = [[1e200, 1e-200, 0.0], [1e-3, 1e-5, 0.0], [5e-324, 0.0, 0.0]]
    cost = [[1, 2**40, 2**50], [1, 2, 3], [1, 2, 3]]
    for budget in (3, 4, 5, 10, 2**40 + 1, 2**40 + 3, 2**40 + 10, 2**51):
        problem = Problem(loss, cost, budget)
        check(problem, brute_force(problem))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tolerance": -0.1}, ValueError, "`tolerance` must be at least 0 and below 1"),
        ({"tolerance": 1.0}, ValueError, "`tolerance` must be at least 0 and below 1"),
        ({"tolerance": math.nan}, ValueError, "`tolerance` must be finite"),
        ({"tolerance": "1%"}, TypeError, "`tolerance` must be a number"),
        ({"most_states": 0}, ValueError, "`most_states` must be at least 1"),
        ({"most_states": 1.5}, TypeError, "`most_states` must be an integer"),
    ],
)
def test_settings_out_of_range_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Exact(**arguments)
