from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import CAKE

LINE = np.arange(200, -1, -1.0)


def in_bytes(layers: int, budget: int) -> Problem:
    return Problem([LINE] * layers, [np.arange(201)] * layers, budget)


def test_shares_are_entropy_times_variance_each_to_its_power() -> None:
    rule = CAKE(tau1=2.0, tau2=0.5, importance=[16.0, 4.0, 1.0], variance=[1.0, 2.0, 4.0])
    # 4 * 1, 2 * 4, 1 * 16
    assert rule.choose(in_bytes(3, 140)).levels.tolist() == [20, 40, 80]


def test_without_a_variance_entropy_alone_counts() -> None:
    assert CAKE(importance=[1.0, 2.0, 4.0]).choose(in_bytes(3, 70)).levels.tolist() == [10, 20, 40]
    assert CAKE(2.0, importance=[1, 4, 16]).choose(in_bytes(3, 70)).levels.tolist() == [10, 20, 40]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), extra=st.integers(0, 300))
def test_by_default_entropy_is_that_of_each_caches_weights_summed_over_a_layer(
    seed: int,
    extra: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
    round_by_hand: Callable[..., list[int]],
) -> None:
    loss = mass(seed, layers=3, kv_heads=2, tokens=120)
    weights = -np.diff(loss, axis=-1)
    shares = weights / weights.sum(axis=-1, keepdims=True)
    entropy = -(shares * np.log(shares)).sum(axis=(1, 2))
    kept = kept_tokens(on_tokens(loss, 6 * 3 + extra), CAKE(window_tokens=3))
    total = sum(map(Fraction, entropy))
    wanted = [3 + extra * Fraction(each) / total / 2 for each in np.repeat(entropy, 2)]
    by_hand = round_by_hand(wanted)
    # the last digit of a logarithm may turn a tie
    assert abs(kept.ravel() - by_hand).sum() <= 2
    assert kept.sum() == 18 + extra


def test_what_a_layer_cannot_hold_goes_to_the_others_in_proportion() -> None:
    rule = CAKE(importance=[8.0, 2.0, 1.0])
    assert rule.choose(in_bytes(3, 320)).levels.tolist() == [200, 80, 40]


def test_signals_are_checked_by_name() -> None:
    with pytest.raises(ValueError, match="`variance` must be at least 0"):
        CAKE(variance=[-1.0])
    with pytest.raises(ValueError, match="`variance` must have the shape"):
        CAKE(variance=[1.0]).choose(in_bytes(3, 9))
    with pytest.raises(ValueError, match="`tau2` must be at least"):
        CAKE(tau2=0.0)
    assert CAKE(variance=[1.0]) != CAKE()


def test_small_exponents_do_not_overflow(recwarn: pytest.WarningsRecorder) -> None:
    rule = CAKE(tau1=0.001, importance=[1e300, 1e299, 1.0])
    assert rule.choose(in_bytes(3, 150)).levels.tolist() == [150, 0, 0]
    assert not recwarn.list
