import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Problem, Status, hull_bound, solve
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.solvers import Greedy, Hull


@given(st.integers(0, 2**32), st.integers(0, 100))
def test_on_convex_curves_of_equal_steps_it_is_optimal(seed: int, share: int) -> None:
    rng = np.random.default_rng(seed)
    gains = np.sort(rng.integers(1, 50, (4, 5)), axis=1)[:, ::-1]
    loss = 300.0 - np.concatenate((np.zeros((4, 1)), np.cumsum(gains, axis=1)), axis=1)
    cost = np.broadcast_to(np.arange(6) * 10, (4, 6))
    problem = Problem(loss, cost, 2 * share)
    solution = solve(problem, Greedy())
    spent = problem.budget_bytes // 10
    best = np.sort(gains.ravel())[::-1][:spent]
    assert solution.loss == 1200 - best.sum()


def test_it_stalls_where_a_step_hides_a_better_one() -> None:
    # unit 0 loses nothing at first and everything later; unit 1 looks better on every step
    problem = Problem([[9.0, 9.0, 0.0], [3.0, 2.0, 1.0]], [[0, 2, 4], [0, 2, 4]], 4)
    assert solve(problem, Greedy()).levels.tolist() == [0, 2]
    assert solve(problem, Hull()).levels.tolist() == [2, 0]


def test_an_upgrade_that_does_not_fit_is_skipped_for_the_next_best() -> None:
    problem = Problem([[9.0, 0.0], [2.0, 0.0]], [[0, 5], [0, 3]], 4)
    assert solve(problem, Greedy()).levels.tolist() == [0, 1]


def test_bytes_that_remove_no_loss_are_not_spent() -> None:
    problem = Problem([[2.0, 1.0, 1.0, 1.0]], [[0, 1, 2, 3]], 3)
    assert Greedy().choose(problem).levels.tolist() == [1]
    assert solve(problem, Greedy()).status is Status.OPTIMAL


def test_it_looks_past_a_flat_stretch_when_bytes_are_left() -> None:
    problem = Problem([[2.0, 2.0, 0.0]], [[0, 1, 2]], 2)
    assert solve(problem, Greedy()).levels.tolist() == [2]


def test_its_answer_carries_the_bound_of_the_hull() -> None:
    problem = Problem([[9.0, 9.0, 0.0], [3.0, 2.0, 1.0]], [[0, 2, 4], [0, 2, 4]], 4)
    assert solve(problem, Greedy()).bound == hull_bound(problem)


def test_a_step_that_a_limit_stops_is_skipped_for_the_next_best() -> None:
    loss, cost = [[9.0, 0.0], [8.0, 0.0], [2.0, 0.0]], [[0, 3], [0, 3], [0, 3]]
    limits = (ByteLimit(4, layers=(0, 1)), ByteLimit(5, layers=(1, 2)))
    problem = Problem(loss, cost, 9, limits)
    assert solve(problem, Greedy()).levels.tolist() == [1, 0, 1]
    assert solve(Problem(loss, cost, 9), Greedy()).levels.tolist() == [1, 1, 1]


@given(st.integers(0, 2**32))
def test_it_leaves_no_next_level_that_fits_every_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(0, 9, (5, 4)), axis=1)
    loss = np.sort(rng.permutation(20).reshape(5, 4), axis=1)[:, ::-1].astype(float)
    half = int(cost[:3, 1:3].sum() // 2 + 1)
    problem = Problem(loss, cost, int(cost[:, 2].sum()), (ByteLimit(half, layers=range(3)),))
    solution = solve(problem, Greedy())
    if not solution.status.has_plan:
        return
    left = problem.budget_bytes - solution.used_bytes
    left_of_half = half - cost[np.arange(3), solution.levels[:3]].sum()
    for unit, level in enumerate(solution.levels[:-1]):
        if level < 3:
            step = cost[unit, level + 1] - cost[unit, level]
            assert step > left or (unit < 3 and step > left_of_half)
