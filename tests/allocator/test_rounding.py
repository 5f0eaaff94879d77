import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Problem, rounding
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.rounding import best_offers, fill, shrink, trim


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


def lowest(problem: Problem) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.zeros(len(problem.loss), dtype=np.int64)


@given(problems())
def test_filling_fits_and_leaves_nothing_worth_buying(problem: Problem) -> None:
    levels = fill(problem, lowest(problem))
    used = used_bytes(problem, levels)
    left = problem.budget_bytes - used
    assert left >= 0
    for unit, level in enumerate(levels):
        better = problem.loss[unit] < problem.loss[unit, level]
        price = problem.cost_bytes[unit] - problem.cost_bytes[unit, level]
        assert not (better & (price <= left)).any()
        # nor does the unit keep memory that it does not need
        same = problem.loss[unit] <= problem.loss[unit, level]
        assert problem.cost_bytes[unit, same].min() == problem.cost_bytes[unit, level]


@given(problems(), st.data())
def test_shrinking_fits_and_changes_nothing_that_fits(
    problem: Problem, data: st.DataObject
) -> None:
    units, num_levels = problem.loss.shape
    start = data.draw(st.lists(st.integers(0, num_levels - 1), min_size=units, max_size=units))
    levels = shrink(problem, np.array(start, dtype=np.int64))
    assert used_bytes(problem, levels) <= problem.budget_bytes
    assert (levels <= start).all()
    if used_bytes(problem, np.array(start)) <= problem.budget_bytes:
        assert levels.tolist() == start


def test_shrinking_takes_from_the_unit_that_minds_least() -> None:
    problem = Problem([[9.0, 1.0], [3.0, 1.0]], [[1, 3], [1, 3]], 4)
    assert shrink(problem, np.array([1, 1])).tolist() == [1, 0]


def test_shrinking_goes_no_lower_than_it_must() -> None:
    problem = Problem([[9.0, 5.0, 1.0]], [[1, 2, 3]], 2)
    assert shrink(problem, np.array([2])).tolist() == [1]


def test_bytes_that_remove_no_loss_are_spent_elsewhere() -> None:
    problem = Problem([[2.0, 1.0, 1.0], [2.0, 1.0, 0.0]], [[0, 1, 2], [0, 1, 2]], 3)
    assert fill(problem, np.array([2, 0])).tolist() == [1, 2]


def test_filling_buys_most_loss_per_byte_first() -> None:
    # 3 per byte, then 2 per byte: only the first fits
    problem = Problem([[8.0, 0.0], [9.0, 0.0]], [[0, 4], [0, 3]], 4)
    assert fill(problem, lowest(problem)).tolist() == [0, 1]


def test_filling_takes_a_level_off_the_hull_when_no_corner_fits() -> None:
    # the chord to the last level hides the middle one, which is all that fits
    problem = Problem([[9.0, 8.0, 0.0]], [[0, 2, 4]], 3)
    assert fill(problem, lowest(problem)).tolist() == [1]


def test_a_free_step_is_taken_even_without_a_byte_left() -> None:
    problem = Problem([[9.0, 9.0, 8.0, 7.0]], [[2, 2, 2, 3]], 2)
    assert fill(problem, lowest(problem)).tolist() == [2]


def test_ties_go_to_the_lower_unit() -> None:
    problem = Problem([[2.0, 1.0]] * 4, [[0, 1]] * 4, 2)
    assert fill(problem, lowest(problem)).tolist() == [1, 1, 0, 0]


def test_the_input_is_left_alone() -> None:
    problem = Problem([[2.0, 1.0]], [[0, 1]], 1)
    levels = lowest(problem)
    fill(problem, levels)
    assert levels.tolist() == [0]


def test_an_offer_never_costs_more_than_what_is_left() -> None:
    problem = Problem([[9.0, 5.0, 0.0], [9.0, 9.0, 9.0]], [[0, 2, 4], [0, 1, 2]], 9)
    levels, units = lowest(problem), np.arange(2)
    assert best_offers(problem, levels, units, 4) == [(-9 / 4, 0, 2)]
    assert best_offers(problem, levels, units, 3) == [(-2.0, 0, 1)]
    assert best_offers(problem, levels, units, 1) == []


def test_trimming_finds_the_lowest_level_of_equal_loss() -> None:
    problem = Problem([[9.0, 4.0, 4.0, 4.0]], [[0, 1, 2, 3]], 9)
    assert trim(problem, np.array([3])).tolist() == [1]
    assert trim(problem, np.array([0])).tolist() == [0]


def test_the_last_byte_of_a_huge_budget_is_neither_lost_nor_overspent() -> None:
    huge = 2**60
    problem = Problem([[9.0, 1.0], [5.0, 4.0]], [[0, huge], [0, huge + 1]], 2 * huge)
    assert fill(problem, np.array([1, 0])).tolist() == [1, 0]
    problem = Problem([[9.0, 1.0], [5.0, 4.0]], [[0, huge - 1], [0, huge + 1]], 2 * huge)
    assert fill(problem, np.array([1, 0])).tolist() == [1, 1]


def test_a_budget_far_above_all_costs_buys_everything() -> None:
    problem = Problem([[9.0, 1.0]], [[1, 2**62]], 2**63 - 1)
    assert fill(problem, lowest(problem)).tolist() == [1]
    assert shrink(problem, np.array([1])).tolist() == [1]


@pytest.mark.parametrize("seed", range(5))
def test_looking_at_one_unit_or_at_all_of_them_gives_the_same_plan(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # equal units: as soon as one has moved, the offers of all others are too dear
    rng = np.random.default_rng(seed)
    cost = np.broadcast_to(np.cumsum(rng.integers(1, 99, 12)), (300, 12))
    loss = np.broadcast_to(np.sort(rng.exponential(size=12))[::-1], (300, 12))
    problem = Problem(loss, cost, int(cost[:, 0].sum() + cost[0, -1] * 3 // 2))
    plans = []
    for misses in (0, 10**9):
        monkeypatch.setattr(rounding, "LEAST_MISSES", misses)
        monkeypatch.setattr(rounding, "UNITS_PER_MISS", 10**9)
        plans.append(fill(problem, lowest(problem)).tolist())
    assert plans[0] == plans[1]
    assert max(plans[0]) > 0
