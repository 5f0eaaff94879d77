from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import SqueezeAttention

CURVE = np.arange(200, -1, -1.0)


def in_bytes(layers: int, budget: int) -> Problem:
    return Problem([CURVE] * layers, [np.arange(201)] * layers, budget)


def test_the_group_that_matters_least_gives_to_all_others_alike() -> None:
    rule = SqueezeAttention(small_share=0.4, importance=[0.1, 0.5, 0.9, 0.12, 0.55])
    # base 50: two small layers of 20, and (250 - 40) / 3 = 70 for the others
    assert rule.choose(in_bytes(5, 250)).levels.tolist() == [20, 70, 70, 20, 70]


def test_there_are_three_groups() -> None:
    # with two groups the first three layers would be together
    rule = SqueezeAttention(small_share=0.25, importance=[1.0, 4.0, 4.0, 9.0])
    assert rule.choose(in_bytes(4, 160)).levels.tolist() == [10, 50, 50, 50]


def test_with_two_kinds_of_layers_the_lower_one_is_small() -> None:
    rule = SqueezeAttention(small_share=0.5, importance=[3.0, 1.0, 3.0, 1.0])
    assert rule.choose(in_bytes(4, 200)).levels.tolist() == [75, 25, 75, 25]


def test_layers_that_all_matter_alike_are_equal() -> None:
    assert (
        SqueezeAttention(importance=[2.0] * 3).choose(in_bytes(3, 90)).levels.tolist() == [30] * 3
    )
    assert SqueezeAttention().choose(in_bytes(1, 70)).levels.tolist() == [70]


def test_an_outlier_can_be_a_group_of_its_own() -> None:
    rule = SqueezeAttention(small_share=0.0, importance=[5.0, 6.0, 0.0, 5.1, 6.1])
    assert rule.choose(in_bytes(5, 200)).levels.tolist() == [50, 50, 0, 50, 50]


def test_by_default_layers_that_could_lose_least_are_small(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    loss = mass(1, layers=4, kv_heads=2, tokens=40) * np.array([9.0, 1.0, 8.5, 5.0])[:, None, None]
    kept = kept_tokens(on_tokens(loss, 160), SqueezeAttention())
    # base 20: 7 for the caches of layer 1, the rest alike
    assert kept[1].tolist() == [7, 7]
    assert kept[[0, 2, 3]].sum() == 146
    assert np.ptp(kept[[0, 2, 3]]) == 1


def test_a_small_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match="`small_share` must be within"):
        SqueezeAttention(small_share=1.5)
