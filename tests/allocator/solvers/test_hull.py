import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Problem, hull_bound, solve
from kvbudget.allocator.relaxation import hull_segments
from kvbudget.allocator.solvers import Greedy, Hull, Uniform


def random_problem(seed: int, units: int = 30, levels: int = 9, share: float = 0.4) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 100, (units, levels)), axis=1)
    loss = np.sort(rng.exponential(size=(units, levels)), axis=1)[:, ::-1]
    floor, ceiling = cost[:, 0].sum(), cost[:, -1].sum()
    return Problem(loss, cost, int(floor + share * (ceiling - floor)))


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_it_loses_less_than_one_segment_more_than_the_bound(seed: int, share: float) -> None:
    problem = random_problem(seed, share=share)
    solution = solve(problem, Hull())
    _, segments = hull_segments(problem)
    assert solution.loss - solution.bound < (segments.worth * segments.cost_bytes).max()


@pytest.mark.parametrize("seed", range(5))
def test_on_many_units_the_gap_is_small(seed: int) -> None:
    assert solve(random_problem(seed, units=400), Hull()).gap < 2e-3


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_it_never_loses_more_than_the_same_level_for_all(seed: int, share: float) -> None:
    problem = random_problem(seed, share=share)
    assert solve(problem, Hull()).loss <= solve(problem, Uniform()).loss


def test_it_beats_greedy_where_curves_bend_the_wrong_way() -> None:
    problem = random_problem(11)
    assert solve(problem, Hull()).loss < solve(problem, Greedy()).loss


def test_the_bound_falls_as_the_budget_grows() -> None:
    problem = random_problem(2)
    budgets = range(problem.floor_bytes, problem.ceiling_bytes, 97)
    bounds = [hull_bound(Problem(problem.loss, problem.cost_bytes, b)) for b in budgets]
    assert all(later <= earlier for earlier, later in itertools.pairwise(bounds))


def test_the_bound_it_states_is_the_bound_of_the_hull() -> None:
    problem = random_problem(3)
    assert Hull().choose(problem).bound == hull_bound(problem)


def test_levels_off_the_hull_are_used_to_fill_what_is_left() -> None:
    problem = Problem([[9.0, 8.0, 0.0]], [[0, 2, 4]], 3)
    solution = solve(problem, Hull())
    assert solution.levels.tolist() == [1]
    assert solution.bound == pytest.approx(9 - 3 * 9 / 4)


def test_a_later_corner_that_fits_is_taken_when_a_better_one_does_not() -> None:
    problem = Problem([[9.0, 0.0], [2.0, 1.0]], [[0, 5], [0, 4]], 4)
    assert solve(problem, Hull()).levels.tolist() == [0, 1]


def test_huge_and_tiny_numbers_do_not_disturb_it() -> None:
    loss = np.array([[1e200, 1e-200, 0.0], [1e-3, 1e-5, 0.0], [5e-324, 0.0, 0.0]])
    cost = np.array([[1, 2**40, 2**50], [1, 2, 3], [1, 2, 3]])
    for budget in (3, 10, 2**40 + 10, 2**51):
        solution = solve(Problem(loss, cost, budget), Hull())
        assert solution.bound <= solution.loss
        assert solution.used_bytes <= budget
