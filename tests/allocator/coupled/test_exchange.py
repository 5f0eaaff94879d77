import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import CVaR, Problem
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled.exchange import (
    exchange,
    fill_within,
    risks,
    shrink_within,
    trim_within,
)
from kvbudget.allocator.coupled.multipliers import Multipliers, admit
from kvbudget.allocator.coupled.stacked import Stacked, stack
from kvbudget.allocator.rounding import fill, shrink


def random_stack(seed: int, samples: int = 3) -> tuple[Stacked, Multipliers]:
    rng = np.random.default_rng(seed)
    loss = rng.integers(0, 20, (samples, 5, 4)).astype(float)
    cost = np.cumsum(rng.integers(0, 9, (5, 4)), axis=1)
    limit = ByteLimit(int(cost[:3, :2].sum() // 2) + 20, layers=(0, 1, 2))
    problem = Problem(
        np.minimum.accumulate(loss.mean(axis=0), axis=1),
        cost,
        int(cost[:, :3].sum() // 3) + int(cost[:, 0].sum()),
        (limit,),
        sample_loss=loss,
        risk=CVaR(0.4),
    )
    price = rng.exponential(size=2)
    return stack(problem), admit(price, np.full(samples, 1 / samples), 1.8)


def risk_of(stacked: Stacked, levels: np.ndarray) -> float:
    return stacked.risk(stacked.totals(levels))


seeds = st.integers(0, 9999)


@settings(deadline=None)
@given(seeds)
def test_shrinking_makes_any_levels_fit(seed: int) -> None:
    stacked, multipliers = random_stack(seed)
    start = np.random.default_rng(seed).integers(0, 4, 5)
    levels = shrink_within(stacked, multipliers, start)
    assert stacked.fits(levels)
    assert (levels <= start).all()
    if stacked.fits(start):
        assert (levels == start).all()


@settings(deadline=None)
@given(seeds)
def test_filling_leaves_no_step_that_would_help(seed: int) -> None:
    stacked, multipliers = random_stack(seed)
    levels = fill_within(stacked, multipliers, np.zeros(5, dtype=np.int64))
    assert stacked.fits(levels)
    for unit in range(5):
        for level in range(levels[unit] + 1, 4):
            raised = levels.copy()
            raised[unit] = level
            worse = risk_of(stacked, raised) >= risk_of(stacked, levels) * (1 - 1e-9)
            assert worse or not stacked.fits(raised)


@settings(deadline=None)
@given(seeds)
def test_exchanging_ends_where_no_pair_of_steps_would_help(seed: int) -> None:
    stacked, multipliers = random_stack(seed)
    start = shrink_within(stacked, multipliers, np.full(5, 3))
    levels = exchange(stacked, multipliers, start)
    assert stacked.fits(levels)
    assert risk_of(stacked, levels) <= risk_of(stacked, start)
    for up in range(5):
        for down in range(5):
            for high in range(levels[up] + 1, 4):
                for low in range(levels[down]):
                    other = levels.copy()
                    other[up], other[down] = high, low
                    better = risk_of(stacked, other) < risk_of(stacked, levels) * (1 - 1e-9)
                    assert up == down or not (better and stacked.fits(other))


@settings(deadline=None)
@given(seeds)
def test_trimming_loses_nothing_in_any_sample(seed: int) -> None:
    stacked, _ = random_stack(seed)
    start = np.random.default_rng(seed).integers(0, 4, 5)
    levels = trim_within(stacked, start)
    assert (levels <= start).all()
    assert (stacked.totals(levels) <= stacked.totals(start)).all()


@settings(deadline=None)
@given(seeds)
def test_with_one_limit_and_one_sample_they_do_what_the_plain_ones_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss = np.sort(rng.permutation(20).reshape(5, 4).astype(float), axis=1)[:, ::-1]
    cost = np.cumsum(rng.integers(1, 99, (5, 4)), axis=1)
    problem = Problem(loss, cost, int(cost[:, 1].sum()))
    stacked, multipliers = stack(problem), admit(np.ones(1), np.ones(1), 1.0)
    lowest = np.zeros(5, dtype=np.int64)
    ours = fill_within(stacked, multipliers, lowest)
    assert risk_of(stacked, ours) == problem.total_loss(fill(problem, lowest))
    assert stacked.fits(shrink_within(stacked, multipliers, np.full(5, 3)))
    assert (
        problem.cost_bytes[np.arange(5), shrink(problem, np.full(5, 3))].sum() <= cost[:, 1].sum()
    )


def test_what_is_missing_is_taken_where_it_harms_least() -> None:
    loss, cost = [[9.0, 0.0], [5.0, 0.0], [1.0, 0.0]], [[0, 4]] * 3
    limited = stack(Problem(loss, cost, 12, (ByteLimit(4, layers=(0, 1)),)))
    multipliers = admit(np.ones(2), np.ones(1), 1.0)
    # unit 2 would mind least, but frees nothing of the limit that is missed
    assert shrink_within(limited, multipliers, np.ones(3, dtype=int)).tolist() == [1, 0, 1]


def test_an_exchange_finds_what_single_steps_cannot() -> None:
    problem = Problem([[9.0, 0.0], [8.0, 0.0]], [[0, 5], [0, 4]], 5)
    stacked, multipliers = stack(problem), admit(np.array([2.0]), np.ones(1), 1.0)
    stuck = np.array([0, 1])
    assert fill_within(stacked, multipliers, stuck).tolist() == [0, 1]
    assert exchange(stacked, multipliers, stuck).tolist() == [1, 0]


def test_a_unit_is_not_exchanged_with_itself() -> None:
    # up and down in unit 0 would look best: much gained, little lost, no byte more
    problem = Problem([[9.0, 8.5, 0.0], [4.0, 0.0, 0.0]], [[0, 5, 10], [0, 5, 5]], 10)
    stacked, multipliers = stack(problem), admit(np.array([0.9]), np.ones(1), 1.0)
    assert exchange(stacked, multipliers, np.array([1, 1])).tolist() == [2, 0]


def test_losses_whose_sums_are_rounded_do_not_keep_it_running() -> None:
    loss = [[1e200, 1e184, 0.0], [1.0, 0.5, 0.0], [1e-200, 1e-220, 0.0]]
    problem = Problem(loss, [[0, 1, 2]] * 3, 4)
    stacked, multipliers = stack(problem), admit(np.ones(1), np.ones(1), 1.0)
    levels = fill_within(stacked, multipliers, np.zeros(3, dtype=np.int64))
    assert stacked.fits(exchange(stacked, multipliers, levels))


def test_many_risks_are_taken_at_once() -> None:
    stacked, _ = random_stack(1)
    totals = np.random.default_rng(0).normal(size=(4, 2, 3))
    assert risks(stacked, totals)[3, 1] == pytest.approx(stacked.risk(totals[3, 1]))
    assert risks(stacked, totals).shape == (4, 2)
