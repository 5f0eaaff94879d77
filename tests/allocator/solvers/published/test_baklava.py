import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem, Status, Uniform, solve
from kvbudget.allocator.solvers.published import BaKlaVa


def in_bytes(loss: list[np.ndarray], budget: int) -> Problem:
    return Problem(loss, [np.arange(len(loss[0]))] * len(loss), budget)


LINE = np.arange(200, -1, -1.0)


def test_one_trial_is_the_family_it_describes() -> None:
    # only the small cache's loss counts for the search, so the trial beats equal caches
    loss = [LINE * 2, LINE, LINE * 4, LINE * 3]
    rule = BaKlaVa(shrunk_shares=(0.5,), kept_shares=(0.2,), importance=[2.0, 1.0, 6.0, 4.0])
    # equal is 50; two caches keep 10 and give 80, divided 6 : 4
    assert rule.choose(in_bytes(loss, 200)).levels.tolist() == [10, 10, 98, 82]


def test_it_finds_the_best_of_the_grid() -> None:
    rng = np.random.default_rng(3)
    loss = [np.append(-np.sort(-rng.exponential(scale, 200)), 0.0) for scale in (1, 3, 9, 2, 5)]
    problem = in_bytes(loss, 250)
    rule = BaKlaVa()
    grid = itertools.product(rule.shrunk_shares, rule.kept_shares)
    single = [
        problem.total_loss(BaKlaVa(shrunk_shares=(p,), kept_shares=(r,)).choose(problem).levels)
        for p, r in grid
    ]
    assert problem.total_loss(rule.choose(problem).levels) == min(single)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 100))
def test_it_never_loses_more_than_equal_caches(seed: int, budget: int) -> None:
    loss = -np.sort(-np.random.default_rng(seed).exponential(size=(5, 21)))
    problem = in_bytes(list(loss), budget)
    assert solve(problem, BaKlaVa()).loss <= solve(problem, Uniform()).loss


def test_without_trials_all_caches_are_equal() -> None:
    rule = BaKlaVa(shrunk_shares=())
    assert rule.choose(in_bytes([LINE, LINE * 9], 101)).levels.tolist() == [51, 50]


def test_a_cache_that_cannot_lose_anything_gives_all_it_can() -> None:
    problem = in_bytes([LINE, np.zeros(201)], 200)
    solution = solve(problem, BaKlaVa(shrunk_shares=(0.5,), kept_shares=(0.0,)))
    assert solution.levels.tolist() == [200, 0]
    assert solution.status is Status.OPTIMAL


def test_shares_are_checked_and_kept_as_tuples() -> None:
    assert BaKlaVa(kept_shares=[0.5]).kept_shares == (0.5,)
    with pytest.raises(ValueError, match="`kept_shares` must be within"):
        BaKlaVa(kept_shares=(0.5, 1.5))
