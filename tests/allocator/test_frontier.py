import itertools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem, hull_bound
from kvbudget.allocator.frontier import LEAST_STRIDE, Frontier, trace
from kvbudget.allocator.reduction import reduce

Point = tuple[int, Fraction]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Tiny problems with ties, flat stretches, free upgrades and bumps."""
    units, levels = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rows = st.lists(
        st.lists(st.integers(0, 9), min_size=levels, max_size=levels),
        min_size=units,
        max_size=units,
    )
    cost, drop = np.cumsum(draw(rows), axis=1), np.cumsum(draw(rows), axis=1)
    scale = draw(st.sampled_from([1.0, 0.1, 1e-9, 1e6]))
    offset = draw(st.sampled_from([0.0, 20.0, -50.0]))
    return Problem((drop[:, -1:] - drop + offset) * scale, cost, 0)


@st.composite
def wild_problems(draw: st.DrawFn) -> Problem:
    """Tiny problems whose losses differ by many orders of magnitude."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    units, levels = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    loss = np.sort(10.0 ** rng.uniform(-12, 12, (units, levels)), axis=1)[:, ::-1]
    cost = np.cumsum(rng.integers(1, 10 ** rng.integers(1, 16), (units, levels)), axis=1)
    return Problem(loss, cost, 0)


def traced(problem: Problem) -> Frontier:
    """The frontier of a problem."""
    reduction = reduce(problem)
    assert reduction is not None
    return trace(reduction)


def choices(problem: Problem) -> list[Point]:
    """All bytes that choices of levels can need, each with the least exact loss at it."""
    menus: list[list[Any]] = [
        [(int(c), Fraction(v)) for c, v in zip(cost, loss, strict=True)]
        for cost, loss in zip(problem.cost_bytes.tolist(), problem.loss.tolist(), strict=True)
    ]
    found = {0: Fraction(0)}
    for menu in menus:
        sums = [(had + c, lost + v) for had, lost in found.items() for c, v in menu]
        found = dict(sorted(sums, reverse=True))
    return list(found.items())


def envelope(points: Sequence[Point]) -> list[Point]:
    """Corners of the falling part of the lower convex hull, by walking to the steepest point."""
    least = min(points)[0]
    corners = [(least, min(loss for cost, loss in points if cost == least))]
    while True:
        cost, loss = corners[-1]
        slopes = [((v - loss) / (c - cost), -c, v) for c, v in points if c > cost and v < loss]
        if not slopes:
            return corners
        _, minus_cost, value = min(slopes)  # of equal slopes the farthest
        corners.append((-minus_cost, value))


def height(corners: Sequence[Point], num_bytes: int) -> Fraction:
    """The envelope at a number of bytes not below its first corner."""
    for (start, above), (end, below) in itertools.pairwise(corners):
        if num_bytes < end:
            return above + (below - above) * Fraction(num_bytes - start, end - start)
    return corners[-1][1]


@settings(deadline=None)
@given(problems())
def test_its_points_are_the_lower_convex_envelope_of_all_choices(problem: Problem) -> None:
    frontier = traced(problem)
    corners = envelope(choices(problem))
    size = float(np.abs(problem.loss).sum())
    found = dict(zip(frontier.budget_bytes.tolist(), frontier.loss.tolist(), strict=True))
    for num_bytes, loss in corners:
        assert frontier.loss_at(num_bytes) == pytest.approx(float(loss), abs=1e-14 * size)
        # between fractions, three points in a line may make a corner by rounding alone
        assert num_bytes in found or (problem.loss % 1).any()
    for num_bytes, loss in found.items():
        assert loss == pytest.approx(float(height(corners, num_bytes)), abs=1e-14 * size)


@settings(deadline=None)
@given(problems())
def test_the_levels_of_each_point_have_its_bytes_and_its_loss(problem: Problem) -> None:
    frontier = traced(problem)
    for point, (num_bytes, loss) in enumerate(
        zip(frontier.budget_bytes.tolist(), frontier.loss.tolist(), strict=True)
    ):
        at = np.arange(len(problem.loss)), frontier.levels(point)
        assert problem.cost_bytes[at].sum() == num_bytes
        assert loss == pytest.approx(float(problem.loss[at].sum()), rel=1e-13, abs=1e-13)


@settings(deadline=None)
@given(problems(), st.integers(0, 200))
def test_a_point_is_the_last_one_that_fits(problem: Problem, num_bytes: int) -> None:
    frontier = traced(problem)
    point = frontier.point(num_bytes)
    assert point == sum(need <= num_bytes for need in frontier.budget_bytes.tolist()) - 1


@settings(deadline=None)
@given(problems(), st.floats(0, 1.1))
def test_between_points_it_is_the_optimum_of_the_relaxed_problem(
    problem: Problem, share: float
) -> None:
    floor, ceiling = problem.floor_bytes, problem.ceiling_bytes
    num_bytes = floor + int(share * (ceiling - floor))
    frontier = traced(problem)
    wanted = hull_bound(replace(problem, budget_bytes=num_bytes))
    size = float(np.abs(problem.loss).sum())
    assert frontier.loss_at(num_bytes) == pytest.approx(wanted, rel=1e-12, abs=1e-13 * size)
    assert frontier.bound_at(num_bytes) == pytest.approx(wanted, rel=1e-12, abs=1e-13 * size)


@settings(deadline=None)
@given(st.one_of(problems(), wild_problems()), st.data())
def test_no_choice_within_a_budget_is_below_the_bound_not_even_by_rounding(
    problem: Problem, data: st.DataObject
) -> None:
    frontier = traced(problem)
    every = choices(problem)
    near = st.sampled_from([c for c, _ in every]).map(lambda c: max(c - 1, problem.floor_bytes))
    anywhere = st.integers(problem.floor_bytes, problem.ceiling_bytes)
    for num_bytes in (data.draw(near), data.draw(anywhere)):
        best = min(loss for cost, loss in every if cost <= num_bytes)
        assert Fraction(frontier.bound_at(num_bytes)) <= best


@settings(deadline=None)
@given(wild_problems())
def test_small_losses_at_the_end_are_not_lost_in_large_ones_at_the_start(problem: Problem) -> None:
    frontier = traced(problem)
    units = np.arange(len(problem.loss))
    for point, loss in enumerate(frontier.loss.tolist()):
        exact = sum(map(Fraction, problem.loss[units, frontier.levels(point)].tolist()))
        assert loss == pytest.approx(float(exact), rel=1e-13)


def test_a_large_loss_that_nothing_removes_is_counted_as_rounding() -> None:
    rng = np.random.default_rng(0)
    loss = 1e3 * rng.random((7, 1)) + 1e-9 * np.arange(9)[::-1]
    frontier = traced(Problem(loss, np.cumsum(rng.integers(1, 50, loss.shape), axis=1), 0))
    for point, num_bytes in enumerate(frontier.budget_bytes.tolist()):
        exact = sum(map(Fraction, loss[np.arange(7), frontier.levels(point)].tolist()))
        assert Fraction(frontier.bound_at(num_bytes)) <= exact


def test_between_a_huge_loss_and_a_small_one_the_line_is_exact() -> None:
    frontier = traced(Problem([[1e20, 1.0]], [[0, 2**50]], 0))
    assert frontier.loss_at(2**50 - 1) == pytest.approx(1 + 1e20 / 2**50, rel=1e-14)


def test_a_checkpoint_may_lie_at_the_very_end() -> None:
    levels = np.arange(LEAST_STRIDE + 1)
    frontier = traced(Problem([(LEAST_STRIDE - levels) ** 2], [levels], 0))
    assert len(frontier.unit) == frontier.stride
    assert [frontier.levels(point)[0] for point in levels] == levels.tolist()


def large(seed: int = 0, units: int = 40, levels: int = 30) -> Problem:
    """A problem with many steps."""
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 1000, (units, levels)), axis=1)
    loss = np.sort(rng.exponential(size=(units, levels)) ** 4, axis=1)[:, ::-1]
    return Problem(loss, cost, 0)


def test_on_a_large_problem_it_rises_falls_and_bends_as_it_must() -> None:
    frontier = traced(large())
    assert len(frontier.loss) == len(frontier.unit) + 1 > 3 * LEAST_STRIDE
    assert (np.diff(frontier.budget_bytes) > 0).all()
    assert (np.diff(frontier.loss) < 0).all()
    slopes = np.diff(frontier.loss) / np.diff(frontier.budget_bytes)
    assert (np.diff(slopes) >= -1e-9 * np.abs(slopes[1:])).all()


def test_levels_never_rise_when_the_budget_falls() -> None:
    frontier = traced(large())
    every = [frontier.levels(point) for point in range(len(frontier.loss))]
    assert all((np.diff(pair, axis=0) >= 0).all() for pair in itertools.pairwise(every))
    # one step, one unit
    assert all(np.count_nonzero(b - a) == 1 for a, b in itertools.pairwise(every))


def test_a_lookup_repeats_only_the_steps_after_a_checkpoint() -> None:
    frontier = traced(large())
    for point in range(len(frontier.loss)):
        block = point // frontier.stride * frontier.stride
        # any step outside the last stride would lead to a unit that is not there
        poisoned = np.full_like(frontier.unit, 10**6)
        poisoned[block:point] = frontier.unit[block:point]
        assert point - block < frontier.stride
        found = replace(frontier, unit=poisoned).levels(point)
        assert np.array_equal(found, frontier.levels(point))


def test_checkpoints_need_no_more_memory_than_the_steps() -> None:
    for units, levels in ((40, 30), (200, 20), (1, 300)):
        frontier = traced(large(units=units, levels=levels))
        assert frontier.checkpoints.size <= len(frontier.unit) + len(frontier.first)


def test_below_the_first_point_there_is_nothing() -> None:
    frontier = traced(Problem([[2.0, 1.0]], [[5, 6]], 0))
    assert frontier.point(4) == -1
    assert frontier.loss_at(4) == frontier.bound_at(4) == float("inf")
    assert frontier.point(5) == 0


def test_beyond_the_last_point_nothing_changes() -> None:
    frontier = traced(Problem([[2.0, 1.0]], [[5, 6]], 0))
    assert frontier.point(10**30) == 1
    assert frontier.loss_at(10**30) == 1.0


def test_one_level_makes_one_point() -> None:
    frontier = traced(Problem([[2.0], [3.0]], [[5], [6]], 0))
    assert (frontier.budget_bytes.tolist(), frontier.loss.tolist()) == ([11], [5.0])
    assert frontier.levels(0).tolist() == [0, 0]


def test_bytes_beyond_the_range_of_exact_floats_stay_exact() -> None:
    cost = [[1, 2**60 + 1], [2, 2**60 + 3]]
    frontier = traced(Problem([[3.0, 0.0], [2.0, 0.0]], cost, 0))
    assert frontier.budget_bytes.tolist() == [3, 2**60 + 3, 2**61 + 4]


def test_infinite_losses_are_never_chosen() -> None:
    problem = Problem([[np.inf, 4.0, 1.0], [np.inf, np.inf, 2.0]], [[1, 2, 3], [1, 2, 3]], 0)
    frontier = traced(problem)
    assert frontier.budget_bytes.tolist() == [5, 6]
    assert frontier.levels(0).tolist() == [1, 2]


def test_frontiers_compare_by_content_and_cannot_be_changed() -> None:
    frontier = traced(large(1))
    assert frontier == traced(large(1)) != traced(large(2))
    assert frontier != "frontier"
    for array in (frontier.budget_bytes, frontier.loss, frontier.first, frontier.level):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
