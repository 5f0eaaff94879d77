from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import CompressKV

LINE = np.arange(400, -1, -1.0)


def in_bytes(layers: int, budget: int, floor: int = 0) -> Problem:
    return Problem([LINE[floor:]] * layers, [np.arange(floor, 401)] * layers, budget)


def test_every_layer_gets_the_least_and_the_rest_by_error() -> None:
    rule = CompressKV(importance=[1.0, 2.0, 3.0])
    # the lowest level of 20 bytes stands for the least tokens; 60 more by error
    assert rule.choose(in_bytes(3, 120, floor=20)).levels.tolist() == [10, 20, 30]


def test_the_most_of_a_layer_is_a_multiple_of_the_mean() -> None:
    rule = CompressKV(most_of_mean=2.0, importance=[8.0, 1.0, 1.0])
    # 72 of 90 would be more than 60, so 30 are left for two equal layers
    assert rule.choose(in_bytes(3, 90)).levels.tolist() == [60, 15, 15]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), each=st.integers(1, 30))
def test_limits_in_tokens_hold(
    seed: int,
    each: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed, layers=5, kv_heads=2, tokens=30)
    loss *= np.random.default_rng(seed).exponential(size=(5, 1, 1)) ** 3
    rule = CompressKV(least_tokens=4, most_of_mean=1.5)
    kept = kept_tokens(on_tokens(loss, 10 * each), rule)
    assert kept.sum() == 10 * each
    assert kept.min() >= min(4, each)
    assert kept.max() <= np.ceil(1.5 * each)
    # a layer of larger error never gets less
    order = np.argsort((loss[..., 0] - loss[..., -1]).mean(axis=1))
    assert (np.diff(kept.mean(axis=1)[order]) >= -1).all()


def test_if_the_least_does_not_fit_the_lowest_levels_bound(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    problem = on_tokens(mass(1, tokens=30), 6 * 5)
    kept = kept_tokens(problem, CompressKV(least_tokens=10))
    assert kept.tolist() == [[5, 5]] * 3


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`most_of_mean` must be at least 1"):
        CompressKV(most_of_mean=0.9)
    with pytest.raises(ValueError, match="`least_tokens` must be at least 0"):
        CompressKV(least_tokens=-1)
