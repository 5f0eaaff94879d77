import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from kvbudget.allocator import Problem, hull_bound
from kvbudget.allocator.relaxation import (
    hull_segments,
    lagrangian_bound,
    reduced_losses,
    relax,
    used_bytes,
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Feasible problems with ties, flat stretches and free upgrades."""
    units, levels = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    row = st.lists(st.integers(0, 9), min_size=levels, max_size=levels)
    rows = st.lists(row, min_size=units, max_size=units)
    cost = np.cumsum(np.array(draw(rows)), axis=1)
    loss = 90.0 - np.cumsum(np.array(draw(rows)), axis=1)
    floor, ceiling = int(cost[:, 0].sum()), int(cost[:, -1].sum())
    return Problem(loss, cost, draw(st.integers(floor, ceiling + 3)))


def linear_optimum(problem: Problem) -> float:
    """Optimum of the relaxation by scipy."""
    units, levels = problem.loss.shape
    answer: Any = linprog(
        problem.loss.ravel(),
        A_ub=problem.cost_bytes.reshape(1, -1),
        b_ub=[problem.budget_bytes],
        A_eq=np.kron(np.eye(units), np.ones(levels)),
        b_eq=np.ones(units),
    )
    assert answer.status == 0
    return float(answer.fun)


@settings(deadline=None)
@given(problems())
def test_the_bound_is_the_optimum_of_the_linear_program(problem: Problem) -> None:
    assert hull_bound(problem) == pytest.approx(linear_optimum(problem), rel=1e-7, abs=1e-7)


@settings(deadline=None)
@given(problems())
def test_the_whole_segments_fit_and_the_next_one_does_not(problem: Problem) -> None:
    relaxed = relax(problem)
    left = problem.budget_bytes - used_bytes(problem, relaxed.levels)
    loss = problem.loss[np.arange(len(problem.loss)), relaxed.levels].sum()
    assert left >= 0
    # less than one segment is missing from the bound
    assert loss - relaxed.bound == pytest.approx(relaxed.price * left, abs=1e-9)
    _, segments = hull_segments(problem)
    bought = problem.budget_bytes - problem.floor_bytes - left
    assert relaxed.price == 0 or (np.cumsum(segments.cost_bytes) > bought + left).any()


@settings(deadline=None)
@given(problems(), st.floats(0, 50))
def test_every_price_proves_a_bound(problem: Problem, price: float) -> None:
    levels = np.zeros(len(problem.loss), dtype=np.int64)
    bound = lagrangian_bound(problem, price, levels)
    assert bound <= hull_bound(problem) + 1e-9
    # even a foolish price proves as much as no price at all
    assert bound >= problem.loss[:, -1].sum() - 1e-9


@settings(deadline=None)
@given(problems())
def test_segments_are_sorted_and_rise_within_a_unit(problem: Problem) -> None:
    _, segments = hull_segments(problem)
    assert (np.diff(segments.worth) <= 0).all()
    assert (segments.cost_bytes > 0).all()
    for unit in range(len(problem.loss)):
        assert (np.diff(segments.level[segments.unit == unit]) > 0).all()
    ties = np.diff(segments.worth) == 0
    assert (np.diff(segments.unit)[ties] > 0).all()


def test_a_worked_example() -> None:
    # worth per byte: unit 0 has 4 then 1, unit 1 has 2; 3 bytes are left above the floor
    problem = Problem([[9.0, 5.0, 4.0], [8.0, 4.0, 4.0]], [[1, 2, 3], [1, 3, 9]], 4)
    relaxed = relax(problem)
    assert relaxed.levels.tolist() == [1, 0]
    assert relaxed.price == 2.0
    assert relaxed.bound == pytest.approx(13.0 - 2.0)


def test_everything_fits_gives_no_price() -> None:
    relaxed = relax(Problem([[2.0, 1.0]], [[1, 2]], 5))
    assert (relaxed.levels.tolist(), relaxed.price) == ([1], 0.0)
    assert relaxed.bound == pytest.approx(1.0)


def test_without_a_plan_the_bound_is_infinite() -> None:
    problem = Problem([[2.0, 1.0]], [[3, 4]], 2)
    assert hull_bound(problem) == math.inf
    with pytest.raises(ValueError, match="must have a budget of at least"):
        relax(problem)


def test_losses_of_very_different_size_keep_a_valid_bound() -> None:
    loss = [[1e200, 1e-200], [1e-3, 0.0], [5e-324, 0.0]]
    for budget in range(3, 10):
        problem = Problem(loss, [[1, 3], [1, 3], [1, 3]], budget)
        relaxed = relax(problem)
        at = problem.loss[np.arange(3), relaxed.levels].sum()
        assert relaxed.bound <= at
        assert math.isfinite(relaxed.bound)


def wide_problem(seed: int) -> Problem:
    """Three units with costs near the largest integers and losses of all sizes."""
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(0, 2**62 // 12, (3, 4)), axis=1)
    loss = np.sort(rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-9, 9, (3, 4)), axis=1)[:, ::-1]
    floor, ceiling = sum(cost[:, 0].tolist()), sum(cost[:, -1].tolist())
    return Problem(loss, cost, int(rng.integers(floor, ceiling + 1)))


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_near_the_largest_integers_the_bound_holds_and_the_levels_fit(seed: int) -> None:
    problem = wide_problem(seed)
    cost, loss = problem.cost_bytes.tolist(), problem.loss.tolist()
    plans = [
        sum(Fraction(loss[unit][level]) for unit, level in enumerate(levels))
        for levels in itertools.product(range(4), repeat=3)
        if sum(cost[unit][level] for unit, level in enumerate(levels)) <= problem.budget_bytes
    ]
    relaxed = relax(problem)
    assert relaxed.bound <= min(plans)
    assert used_bytes(problem, relaxed.levels) <= problem.budget_bytes


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1e-6))
def test_rounding_never_makes_a_reduced_loss_too_large(seed: int, price: float) -> None:
    problem = wide_problem(seed)
    levels = np.array([1, 2, 0])
    reduced = reduced_losses(problem, price, levels)
    cost, loss = problem.cost_bytes.tolist(), problem.loss.tolist()
    for unit, level in itertools.product(range(3), range(4)):
        base = int(levels[unit])
        exact = Fraction(loss[unit][level]) - Fraction(loss[unit][base])
        exact += Fraction(price) * (cost[unit][level] - cost[unit][base])
        assert reduced[unit, level] <= exact
        assert float(exact) - reduced[unit, level] <= 1e-15 * (
            abs(loss[unit][level]) + abs(loss[unit][base]) + price * 2.0**62
        )


def test_a_price_at_which_large_numbers_cancel_proves_nothing_untrue() -> None:
    # the first segment is worth exactly 0.1 a byte, which no float is
    problem = Problem([[1e15 / 3, 0.0]], [[0, 10**16 // 3]], 10**16 // 3)
    for price in (0.1, np.nextafter(0.1, 0), np.nextafter(0.1, 1)):
        assert lagrangian_bound(problem, price, np.array([1])) <= 0.0


def test_a_budget_beyond_all_integers_of_the_costs_is_no_matter() -> None:
    relaxed = relax(Problem([[2.0, 1.0]], [[1, 2**62]], 2**63 - 1))
    assert (relaxed.levels.tolist(), relaxed.price) == ([1], 0.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("budget", [1, 2, 3, 2**60, 2**61 + 2])
def test_the_largest_losses_at_the_largest_costs_do_not_overflow(budget: int) -> None:
    loss = [[1e290, -1e290], [1e290, -1e290], [3.0, 2.0]]
    problem = Problem(loss, [[0, 1], [0, 2], [0, 2**61]], budget)
    assert math.isfinite(relax(problem).bound)
    assert hull_bound(problem) <= sum(problem.loss[np.arange(3), relax(problem).levels])
    assert math.isfinite(lagrangian_bound(problem, 1e300, relax(problem).levels))
