from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import PyramidKV

MOST = 400
CURVE = np.arange(MOST, -1, -1.0)


def in_bytes(layers: int, budget: int) -> Problem:
    """Layers of one cache each that may keep 0 to 400 bytes."""
    return Problem([CURVE] * layers, [np.arange(MOST + 1)] * layers, budget)


def by_hand(layers: int, budget: int, beta: Fraction) -> list[Fraction]:
    """The published series; without a window the first layer never holds more than it can."""
    base = Fraction(budget, layers)
    if layers == 1 or 2 * base > MOST:
        return [base] * layers
    low = base / beta
    high = 2 * base - low
    return [high + (low - high) * Fraction(i, layers - 1) for i in range(layers)]


@given(
    layers=st.integers(1, 8),
    share=st.floats(0, 1),
    beta=st.sampled_from([1, 2, 20, Fraction(5, 4)]),
)
def test_it_is_the_arithmetic_series_rounded_by_largest_remainder(
    layers: int, share: float, beta: Fraction, round_by_hand: Callable[..., list[int]]
) -> None:
    budget = int(share * layers * MOST)
    levels = PyramidKV(beta=float(beta)).choose(in_bytes(layers, budget)).levels
    assert levels.tolist() == round_by_hand(by_hand(layers, budget, Fraction(beta)))


def test_the_slope_is_the_published_one() -> None:
    # base 100, so 5 for the last layer and 195 for the first
    assert PyramidKV().choose(in_bytes(5, 500)).levels.tolist() == [195, 148, 100, 52, 5]


def test_a_first_layer_that_would_overflow_is_clamped_and_the_last_raised(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    loss = mass(1, layers=3, kv_heads=1, tokens=100)
    # 48 tokens beyond a window of 8 in the mean: 93.6 would be the first, but 92 is all there is
    kept = kept_tokens(on_tokens(loss, 3 * 56), PyramidKV(window_tokens=8))
    assert kept.ravel().tolist() == [8 + 92, 8 + 48, 8 + 4]
    # the same without a clamp
    kept = kept_tokens(on_tokens(loss, 3 * 48), PyramidKV(window_tokens=8))
    assert kept.ravel().tolist() == [8 + 78, 8 + 40, 8 + 2]


def test_if_twice_the_mean_overflows_all_layers_are_equal() -> None:
    assert PyramidKV().choose(in_bytes(3, 603)).levels.tolist() == [201, 201, 201]


@given(
    seed=st.integers(0, 2**32),
    layers=st.integers(2, 5),
    kv_heads=st.integers(1, 3),
    window=st.integers(0, 4),
    data=st.data(),
)
def test_caches_of_a_layer_are_equal_and_the_window_comes_on_top(
    seed: int,
    layers: int,
    kv_heads: int,
    window: int,
    data: st.DataObject,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
    round_by_hand: Callable[..., list[int]],
) -> None:
    caches = layers * kv_heads
    base = Fraction(data.draw(st.integers(5 * caches, 18 * caches)), caches)
    low, high = base / 4, 2 * base - base / 4
    held = max(window, 1)
    assume(high <= 40 - held)
    assume(2 * base <= 40)
    problem = on_tokens(mass(seed, layers, kv_heads, 40), int(caches * (base + held)))
    kept = kept_tokens(problem, PyramidKV(beta=4.0, window_tokens=window))
    series = [high + (low - high) * Fraction(i, layers - 1) for i in range(layers)]
    wanted = [value + held for value in series for _ in range(kv_heads)]
    assert kept.ravel().tolist() == round_by_hand(wanted)
    assert (np.ptp(kept, axis=1) <= 1).all()


@pytest.mark.parametrize("setting", [{"beta": 0.5}, {"window_tokens": -1}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(setting))}` must be at least"):
        PyramidKV(**setting)
