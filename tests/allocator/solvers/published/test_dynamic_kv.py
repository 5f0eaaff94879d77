from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import DynamicKV

LINE = np.arange(400, -1, -1.0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), won=st.integers(0, 60))
def test_layers_get_their_winners_of_one_top_k_over_the_model(
    seed: int,
    won: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
    round_by_hand: Callable[..., list[int]],
) -> None:
    scale = np.random.default_rng(seed).exponential(size=(3, 1, 1))
    loss = mass(seed, layers=3, kv_heads=2, tokens=12) * scale
    weights = -np.diff(loss, axis=-1)[..., 2:].reshape(3, -1)
    won = min(won, weights.size)
    winners = np.argsort(-weights.ravel())[:won] // weights.shape[1]
    wanted = [3 + Fraction(int(n), 2) for n in np.bincount(winners, minlength=3) for _ in range(2)]
    kept = kept_tokens(on_tokens(loss, 6 * 3 + won), DynamicKV(window_tokens=3))
    assert kept.ravel().tolist() == round_by_hand(wanted)


def test_given_winners_are_the_shares() -> None:
    problem = Problem([LINE] * 3, [np.arange(401)] * 3, 60)
    assert DynamicKV(importance=[1, 2, 3]).choose(problem).levels.tolist() == [10, 20, 30]


def test_no_cache_gets_more_than_a_multiple_of_an_equal_division() -> None:
    problem = Problem([LINE] * 4, [np.arange(401)] * 4, 40)
    rule = DynamicKV(most_of_base=2.0, importance=[7.0, 1.0, 1.0, 1.0])
    # 28 is cut to 20, and the others divide the other 20
    assert sorted(rule.choose(problem).levels.tolist()) == [6, 7, 7, 20]
    assert DynamicKV(1.0, importance=[7, 1, 1, 1]).choose(problem).levels.tolist() == [10] * 4


def test_the_limit_yields_where_the_budget_could_not_be_spent() -> None:
    problem = Problem([LINE, [9.0] * 401], [np.arange(401), [0] * 401], 400)
    assert DynamicKV(most_of_base=1.0).choose(problem).levels.tolist() == [400, 0]


def test_a_limit_below_an_equal_division_is_refused() -> None:
    with pytest.raises(ValueError, match="`most_of_base` must be at least 1"):
        DynamicKV(most_of_base=0.5)
