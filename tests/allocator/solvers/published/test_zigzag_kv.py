from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import ZigZagKV
from kvbudget.allocator.solvers.published.zigzag_kv import needed_bytes

LINE = np.arange(400, -1, -1.0)


def test_shares_are_a_floor_plus_need() -> None:
    problem = Problem([LINE] * 3, [np.arange(401)] * 3, 300)
    rule = ZigZagKV(least_share=0.4, importance=[1.0, 2.0, 3.0])
    # 40 each, and 180 by need
    assert rule.choose(problem).levels.tolist() == [70, 100, 130]
    assert ZigZagKV(least_share=1.0).choose(problem).levels.tolist() == [100] * 3


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), kept_mass=st.sampled_from([0.5, 0.9, 0.99]))
def test_the_need_is_the_fewest_tokens_that_keep_the_mass(
    seed: int, kept_mass: float, mass: Callable[..., Any]
) -> None:
    lost = np.append(np.ones((3, 2, 1)), mass(seed, tokens=30), axis=-1).reshape(6, -1)
    problem = Problem(lost, [np.arange(31)] * 6, 60)
    counts = [next(n for n in range(31) if 1 - row[n] >= kept_mass - 1e-12) for row in lost]
    # without an origin every cache is a layer
    assert needed_bytes(problem, kept_mass).tolist() == counts


def test_the_need_of_a_layer_is_the_mean_of_its_caches(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem]
) -> None:
    loss = mass(3, tokens=20)
    removable = loss[..., :1]
    counts = (loss > 0.1 * removable).sum(axis=-1) + 1
    assert needed_bytes(on_tokens(loss, 60), 0.9).tolist() == (4 * counts.mean(axis=1)).tolist()


def test_loss_that_no_memory_removes_needs_none() -> None:
    problem = Problem([[9.0, 5.0, 4.0], [7.0, 7.0, 7.0]], [[1, 2, 9], [1, 2, 9]], 9)
    assert needed_bytes(problem, 0.5).tolist() == [2, 1]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`kept_mass` must be within"):
        ZigZagKV(kept_mass=1.5)
    with pytest.raises(ValueError, match="`least_share` must be within"):
        ZigZagKV(least_share=-0.5)
