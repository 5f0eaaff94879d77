from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.sharing.shares import beyond, divide, spread

BOUNDS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)
SHARES = st.one_of(st.integers(0, 9).map(float), st.floats(0, 1e3), st.just(5e-324))


def tokens(units: int, most: int, budget: int) -> Problem:
    """Units that may keep 0, 1, 2 ... tokens of one byte, each of which removes loss."""
    loss = np.arange(most, -1, -1.0)[None].repeat(units, axis=0)
    return Problem(loss, np.arange(most + 1)[None].repeat(units, axis=0), budget)


@given(st.lists(st.tuples(SHARES, BOUNDS), min_size=1, max_size=7), st.floats(0, 1))
@example([(5e-324, [0, 9]), (1e300, [0, 9]), (0.0, [0, 9])], 0.5)
def test_a_spread_is_one_multiple_of_the_shares_cut_off_at_the_bounds(
    rows: list[tuple[float, list[int]]], part: float
) -> None:
    shares, bounds = [row[0] for row in rows], [row[1] for row in rows]
    lowest, highest = [low for low, _ in bounds], [high for _, high in bounds]
    total = sum(lowest) + int(part * (sum(highest) - sum(lowest)))
    given_out = spread(total, shares, lowest, highest)
    assert sum(given_out) == total
    # multiples that each unit allows: one if it is between its bounds, else a half-line
    least, most = Fraction(0), None
    for value, share, low, high in zip(given_out, shares, lowest, highest, strict=True):
        assert low <= value <= high
        if not share:
            full = all(v == h for v, s, h in zip(given_out, shares, highest, strict=True) if s)
            assert value == low or full
            continue
        ratio = value / Fraction(share)
        if value > low:
            least = max(least, ratio)
        if value < high:
            most = ratio if most is None else min(most, ratio)
    assert most is None or least <= most


def test_units_without_a_share_get_the_rest_by_the_second_shares() -> None:
    assert spread(14, [1, 0, 0], [0] * 3, [8] * 3, [0, 1, 2]) == [8, 2, 4]
    assert spread(14, [1, 0, 0], [0] * 3, [8] * 3) == [8, 3, 3]
    assert spread(6, [1, 0, 0], [0, 1, 2], [8] * 3) == [3, 1, 2]


def test_no_more_is_given_out_than_the_units_can_take() -> None:
    assert spread(99, [1, 2], [0, 0], [3, 4]) == [3, 4]


def test_what_one_unit_cannot_take_is_divided_among_the_others_in_proportion() -> None:
    assert spread(12, [6, 2, 1], [0] * 3, [3, 99, 99]) == [3, 6, 3]
    assert spread(12, [6, 2, 1], [0, 0, 5], [99] * 3) == [Fraction(21, 4), Fraction(7, 4), 5]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(0, 60))
def test_on_single_tokens_it_is_the_method_of_the_largest_remainder(
    shares: list[int], budget: int
) -> None:
    levels = divide(tokens(len(shares), 60, budget), shares)
    exact = [Fraction(budget * share, sum(shares)) for share in shares]
    lost = sorted(range(len(shares)), key=lambda u: (int(exact[u]) - exact[u], u))
    rest = budget - sum(map(int, exact))
    assert levels.tolist() == [int(e) + (lost.index(u) < rest) for u, e in enumerate(exact)]


@given(st.data())
def test_levels_fit_and_leave_less_than_a_step_of_every_unit_below_its_target(
    data: st.DataObject,
) -> None:
    units, num_levels = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 20), min_size=num_levels, max_size=num_levels)
    cost = np.cumsum([data.draw(row) for _ in range(units)], axis=1)
    loss = np.arange(num_levels, 0, -1.0)[None].repeat(units, axis=0)
    budget = data.draw(st.integers(cost[:, 0].sum(), cost[:, -1].sum() + 3))
    problem = Problem(loss, cost, budget)
    shares = data.draw(st.lists(SHARES, min_size=units, max_size=units))
    levels = divide(problem, shares)
    target = spread(budget, shares, cost[:, 0].tolist(), cost[:, -1].tolist())
    left = budget - used_bytes(problem, levels)
    assert left >= 0
    for unit, level in enumerate(levels):
        held = int(cost[unit, level])
        steps = sorted({int(c) for c in cost[unit]})
        rank = steps.index(held)
        within = [step for step in steps if step <= target[unit]]
        # the largest level within the target, or the one above it
        assert rank in (len(within) - 1, len(within))
        if rank == len(within) - 1 and rank + 1 < len(steps):
            assert steps[rank + 1] - held > left
        # of equal costs the level that loses least
        assert loss[unit, level] == loss[unit][cost[unit] == held].min()


@given(st.data())
def test_equal_shares_are_one_level_apart_but_for_units_that_less_serves_as_well(
    data: st.DataObject,
) -> None:
    units, num_levels = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    falls = st.lists(st.integers(0, 1), min_size=num_levels, max_size=num_levels)
    loss = np.array([np.cumsum(data.draw(falls))[::-1] for _ in range(units)], dtype=float)
    steps = st.lists(st.integers(1, 9), min_size=num_levels, max_size=num_levels)
    cost = np.tile(np.cumsum(data.draw(steps)), (units, 1))
    budget = data.draw(st.integers(cost[:, 0].sum(), cost[:, -1].sum()))
    levels = divide(Problem(loss, cost, budget), [1] * units)
    base = int((cost[0] <= budget / units).sum()) - 1
    for curve, level in zip(loss.tolist(), levels.tolist(), strict=True):
        assert level in (curve.index(curve[base]), min(base + 1, num_levels - 1))


def test_a_level_that_brings_nothing_is_not_held() -> None:
    problem = Problem([[9.0, 3.0, 3.0], [9.0, 3.0, 1.0]], [[0, 1, 2], [0, 1, 2]], 4)
    assert divide(problem, [1, 1]).tolist() == [1, 2]


@pytest.mark.parametrize(("extra", "last"), [(0, 0), (1, 1), (2**30, 2), (2**61, 4)])
def test_nothing_is_lost_or_spent_twice_near_the_largest_costs(extra: int, last: int) -> None:
    most = 2**62 // 3
    cost = [[0, 1, 2, most - 1, most]] * 3
    problem = Problem([[4.0, 3.0, 2.0, 1.0, 0.0]] * 3, cost, 2 * most + extra)
    levels = divide(problem, [1.0, 1.0, 1e-30])
    assert used_bytes(problem, levels) <= problem.budget_bytes
    assert (
        levels.tolist() == {0: [4, 4, 0], 1: [4, 4, 1], 2**30: [4, 4, 2], 2**61: [4, 4, 4]}[extra]
    )


def test_limits_hold_where_they_can_and_yield_where_they_cannot() -> None:
    problem = tokens(3, 20, 12)
    assert divide(problem, [1, 0, 0], least_bytes=[0, 3, 2]).tolist() == [7, 3, 2]
    assert divide(problem, [1, 0, 0], least_bytes=[9, 3, 2]).tolist() == [12, 0, 0]
    assert divide(problem, [1, 0, 0], most_bytes=[4, 5, 9]).tolist() == [4, 4, 4]
    assert divide(problem, [1, 0, 0], most_bytes=[4, 5, 2]).tolist() == [12, 0, 0]
    assert divide(problem, [1, 1, 0], least_bytes=[-5, 99, 0]).tolist() == [6, 6, 0]


def test_what_is_left_after_every_units_least_is_divided_by_shares() -> None:
    assert beyond([1, 2], 9, [1, 3]) == [Fraction(5, 2), Fraction(13, 2)]
    assert beyond([1, 2], 9, [0.0, 0.0]) == [4, 5]
    assert beyond([5, 6], 9, [1, 1]) == [5, 6]
