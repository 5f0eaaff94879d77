from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import CoKV

LINE = np.arange(400, -1, -1.0)


def in_bytes(caches: int, budget: int) -> Problem:
    return Problem([LINE] * caches, [np.arange(401)] * caches, budget)


def test_shares_are_what_exceeds_the_kth_smallest() -> None:
    rule = CoKV(least_share=0.5, importance=[3.0, 9.0, 1.0, 5.0])
    # the second smallest is 3, which leaves 6 and 2
    assert rule.choose(in_bytes(4, 80)).levels.tolist() == [0, 60, 0, 20]


def test_the_smallest_never_gets_more_than_its_window() -> None:
    rule = CoKV(least_share=0.0, importance=[3.0, 9.0, 1.0, 5.0])
    assert rule.choose(in_bytes(4, 140)).levels.tolist() == [20, 80, 0, 40]


def test_contributions_that_are_all_equal_make_equal_caches() -> None:
    assert CoKV(importance=[2.0] * 4).choose(in_bytes(4, 80)).levels.tolist() == [20] * 4
    rule = CoKV(least_share=1.0, importance=[1.0, 2.0, 3.0, 4.0])
    assert rule.choose(in_bytes(4, 80)).levels.tolist() == [20] * 4


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), extra=st.integers(0, 200), window=st.integers(0, 5))
def test_by_default_the_contribution_is_the_loss_that_memory_removes(
    seed: int,
    extra: int,
    window: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
    round_by_hand: Callable[..., list[int]],
) -> None:
    loss = mass(seed, layers=4, kv_heads=2, tokens=220)
    removable = (loss[..., 0] - loss[..., -1]).ravel()
    above = [Fraction(max(x - sorted(removable)[1], 0.0)) for x in removable.tolist()]
    held = max(window, 1)
    wanted = [held + extra * x / sum(above) for x in above]
    kept = kept_tokens(on_tokens(loss, 8 * held + extra), CoKV(window_tokens=window))
    assert kept.ravel().tolist() == round_by_hand(wanted)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`least_share` must be within"):
        CoKV(least_share=1.1)
