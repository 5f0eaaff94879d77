from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import D2O
from kvbudget.allocator.solvers.published.d2o import scaled_variance

LINE = np.arange(100, -1, -1.0)


def in_bytes(layers: int, budget: int) -> Problem:
    return Problem([LINE] * layers, [np.arange(101)] * layers, budget)


def test_whole_layers_are_whole_and_the_others_share_by_softmax() -> None:
    rule = D2O(importance=[0.0, 0.0, np.log(2.0), 0.0, np.log(3.0), 0.0])
    # layers 0, 1 and 5 take 300 of 420; 2 : 1 : 3 divide 120
    assert rule.choose(in_bytes(6, 420)).levels.tolist() == [100, 100, 40, 20, 60, 100]


def test_whole_layers_count_in_the_budget_and_yield_to_the_least_of_the_others() -> None:
    levels = D2O(least_share=0.05).choose(in_bytes(6, 165)).levels
    assert levels.tolist() == [50, 50, 5, 5, 5, 50]
    assert D2O().choose(in_bytes(6, 3)).levels.sum() == 3


def test_which_layers_are_whole_can_be_set() -> None:
    rule = D2O(whole_layers=(-2,), importance=[0.0] * 4)
    assert rule.choose(in_bytes(4, 160)).levels.tolist() == [20, 20, 100, 20]
    rule = D2O(whole_layers=(), importance=[0.0] * 4)
    assert rule.choose(in_bytes(4, 160)).levels.tolist() == [40] * 4


def test_layers_that_a_small_model_lacks_are_left_out() -> None:
    assert D2O(whole_layers=(7, -9, 0)).choose(in_bytes(2, 120)).levels.tolist() == [100, 20]
    assert D2O().choose(in_bytes(2, 120)).levels.tolist() == [60, 60]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), budget=st.integers(80, 230))
def test_by_default_the_logarithm_is_minus_the_scaled_variance_of_the_weights(
    seed: int,
    budget: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
    round_by_hand: Callable[..., list[int]],
) -> None:
    loss = mass(seed, layers=4, kv_heads=2, tokens=80)
    weights = -np.diff(loss, axis=-1)
    variance = (weights / weights.sum(axis=-1, keepdims=True)).var(axis=-1)
    u = ((variance - variance.min()) / np.ptp(variance)).mean(axis=1)
    problem = on_tokens(loss, budget)
    assert scaled_variance(problem) == pytest.approx(u)
    kept = kept_tokens(problem, D2O(whole_layers=()))
    share = np.repeat(np.exp(-u), 2)
    wanted = [Fraction(float(x)) / sum(map(Fraction, share)) * budget for x in share]
    assert max(wanted) < 80
    assert abs(kept.ravel() - round_by_hand(wanted)).sum() <= 2


def test_a_flat_layer_gets_more_than_a_steep_one() -> None:
    steep = 100 * 0.8 ** np.arange(101.0)
    problem = Problem([LINE, steep], [np.arange(101)] * 2, 100)
    flat_levels, steep_levels = D2O(whole_layers=()).choose(problem).levels
    # exp(0) against exp(-1)
    assert [flat_levels, steep_levels] == [73, 27]


def test_importance_far_apart_is_divided_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    rule = D2O(whole_layers=(), least_share=0.0, importance=[1e6, 1.0, 0.0])
    assert rule.choose(in_bytes(3, 90)).levels.tolist() == [90, 0, 0]
    assert rule.choose(in_bytes(3, 120)).levels.tolist() == [100, 10, 10]
    assert not recwarn.list


def test_settings_are_checked() -> None:
    assert D2O(whole_layers=[0]).whole_layers == (0,)
    with pytest.raises(TypeError, match="`whole_layers` must be an integer"):
        D2O(whole_layers=(0.5,))
    with pytest.raises(ValueError, match="`least_share` must be within"):
        D2O(least_share=2.0)
