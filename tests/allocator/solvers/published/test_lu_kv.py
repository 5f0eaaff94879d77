import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem, solve
from kvbudget.allocator.curves import lower_hull, useful_levels
from kvbudget.allocator.solvers.published import LUKV
from kvbudget.allocator.solvers.published.lu_kv import convex_worth


def convex_floor(loss: np.ndarray) -> np.ndarray:
    """Largest convex curve below a curve on 0, 1, 2 ..., by trying every chord."""
    floor = loss.copy()
    for here in range(len(loss)):
        for a in range(here + 1):
            for b in range(here, len(loss)):
                if a < b:
                    chord = loss[a] + (loss[b] - loss[a]) * (here - a) / (b - a)
                    floor[here] = min(floor[here], chord)
    return floor


def least_sum(curves: list[np.ndarray], budget: int) -> float:
    """Least total of curves on 0, 1, 2 ... within a budget, by dynamic programming."""
    best = np.zeros(budget + 1)
    for curve in curves:
        best = np.array(
            [
                min(curve[n] + best[b - n] for n in range(min(b, len(curve) - 1) + 1))
                for b in range(budget + 1)
            ]
        )
    return float(best[budget])


def curves_of(data: st.DataObject, most_units: int = 4) -> np.ndarray:
    """Curves with bends both ways and flat stretches, [units, levels]."""
    units, steps = data.draw(st.integers(1, most_units)), data.draw(st.integers(1, 7))
    row = st.lists(st.integers(0, 20), min_size=steps, max_size=steps)
    drops = np.array([data.draw(row) for _ in range(units)])
    return np.cumsum(np.pad(drops[:, ::-1], ((0, 0), (1, 0))), axis=1)[:, ::-1].astype(float)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_on_the_convex_curves_it_is_as_good_as_dynamic_programming(data: st.DataObject) -> None:
    loss = curves_of(data)
    units, levels = loss.shape
    budget = data.draw(st.integers(0, units * (levels - 1)))
    problem = Problem(loss, [np.arange(levels)] * units, budget)
    chosen = LUKV().choose(problem).levels
    convex = [convex_floor(row) for row in loss]
    # only useful levels are held, so a unit inside a flat stretch may save bytes
    reached = sum(curve[level] for curve, level in zip(convex, chosen, strict=True))
    best = least_sum(convex, budget)
    strict = all((np.diff(row) < 0).all() for row in loss)
    assert reached >= best - 1e-9
    if strict:
        assert reached == pytest.approx(best)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), budget=st.integers(0, 24))
def test_with_every_step_useful_the_relaxed_optimum_is_reached_to_the_byte(
    seed: int, budget: int
) -> None:
    rng = np.random.default_rng(seed)
    loss = np.cumsum(rng.exponential(size=(4, 7)) ** 2 + 1e-6, axis=1)[:, ::-1]
    problem = Problem(loss, [np.arange(7)] * 4, budget)
    chosen = LUKV().choose(problem).levels
    convex = [convex_floor(row) for row in loss]
    reached = sum(curve[level] for curve, level in zip(convex, chosen, strict=True))
    assert chosen.sum() == budget
    assert reached == pytest.approx(least_sum(convex, budget))
    assert solve(problem, LUKV()).bound == pytest.approx(reached)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_the_regression_of_the_steps_is_the_lower_convex_hull(data: st.DataObject) -> None:
    loss = curves_of(data)
    row = st.lists(st.integers(0, 5), min_size=loss.shape[1], max_size=loss.shape[1])
    cost = np.cumsum([data.draw(row) for _ in range(len(loss))], axis=1)
    problem = Problem(loss, cost, int(cost[:, -1].sum()))
    useful = useful_levels(problem.cost_bytes, problem.loss)
    worth = convex_worth(problem, useful)
    corners = lower_hull(problem.cost_bytes, problem.loss)
    for unit in range(len(loss)):
        level, corner = np.flatnonzero(useful[unit]), np.flatnonzero(corners[unit])
        rebuilt = loss[unit, level[0]] - np.cumsum(
            worth[unit, level[1:]] * np.diff(cost[unit, level])
        )
        hull = np.interp(cost[unit, level[1:]], cost[unit, corner], loss[unit, corner])
        assert rebuilt == pytest.approx(hull)


def test_it_goes_step_by_step_inside_a_segment() -> None:
    problem = Problem([[9.0, 8.0, 4.0, 0.0], [6.0, 4.0, 2.0, 0.0]], [[0, 1, 2, 3]] * 2, 2)
    assert LUKV().choose(problem).levels.tolist() == [2, 0]


def test_a_step_that_does_not_fit_ends_its_unit_only() -> None:
    problem = Problem([[9.0, 0.0], [3.0, 2.0]], [[0, 5], [0, 2]], 4)
    assert LUKV().choose(problem).levels.tolist() == [0, 1]


def test_free_steps_are_taken_and_flat_ones_are_not() -> None:
    problem = Problem([[9.0, 6.0, 6.0, 1.0], [3.0, 3.0, 3.0, 3.0]], [[2, 2, 3, 9], [0, 1, 2, 3]], 8)
    assert LUKV().choose(problem).levels.tolist() == [1, 0]


def test_losses_of_any_size_are_removed() -> None:
    loss = [[1e200, 1e-200, 0.0], [1e-3, 1e-5, 0.0], [5e-324, 0.0, 0.0]]
    problem = Problem(loss, [[1, 2**40, 2**50], [1, 2, 3], [1, 2, 3]], 2**51)
    assert LUKV().choose(problem).levels.tolist() == [2, 2, 1]
