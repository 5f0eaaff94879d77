from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import HeadKV

LINE = np.arange(400, -1, -1.0)


def in_bytes(caches: int, budget: int) -> Problem:
    return Problem([LINE] * caches, [np.arange(401)] * caches, budget)


def test_a_floor_for_all_and_a_pool_by_score() -> None:
    rule = HeadKV(beta=2.0, importance=[1.0, 2.0, 0.0, 5.0])
    # base 80: 40 for each, and a pool of 160 in eighths
    assert rule.choose(in_bytes(4, 320)).levels.tolist() == [60, 80, 40, 140]


def test_the_power_sharpens_scores_and_zero_makes_them_equal() -> None:
    rule = HeadKV(beta=1.0, temperature=2.0, importance=[1.0, 2.0, 0.0, 5.0])
    assert rule.choose(in_bytes(4, 300)).levels.tolist() == [10, 40, 0, 250]
    rule = HeadKV(beta=1.0, temperature=0.0, importance=[1.0, 2.0, 0.5, 5.0])
    assert rule.choose(in_bytes(4, 300)).levels.tolist() == [75] * 4


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    beta=st.sampled_from([1.005, 1.2, 1.5, 5.0]),
    window=st.integers(0, 4),
    extra=st.integers(0, 200),
)
def test_by_default_the_score_is_the_loss_that_memory_removes(
    seed: int,
    beta: float,
    window: int,
    extra: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed, tokens=220)
    kept = kept_tokens(on_tokens(loss, 6 * max(window, 1) + extra), HeadKV(beta, 1.0, window))
    removable = loss[..., 0] - loss[..., -1]
    pool = extra / beta
    wanted = max(window, 1) + (extra - pool) / 6 + pool * removable / removable.sum()
    assert abs(kept - wanted).max() < 1.01
    assert kept.sum() == 6 * max(window, 1) + extra


def test_what_a_cache_cannot_hold_is_not_lost() -> None:
    rule = HeadKV(beta=1.0, importance=[8.0, 1.0, 1.0])
    assert rule.choose(in_bytes(3, 600)).levels.tolist() == [400, 100, 100]


def test_large_and_small_scores_do_not_overflow(recwarn: pytest.WarningsRecorder) -> None:
    rule = HeadKV(beta=1.0, temperature=9.0, importance=[1e300, 5e299, 1e-300])
    share = Fraction(1, 1 + 2**9)
    assert rule.choose(in_bytes(3, 300)).levels.tolist() == [299, round(300 * share), 0]
    assert not recwarn.list


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`beta` must be at least 1"):
        HeadKV(beta=0.99)
    with pytest.raises(ValueError, match="`temperature` must be at least 0"):
        HeadKV(temperature=-1.0)
