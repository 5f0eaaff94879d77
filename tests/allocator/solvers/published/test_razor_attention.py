from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import RazorAttention

LINE = np.arange(100, -1, -1.0)
SCORES = [float(i) for i in (3, 9, 1, 7, 5, 2, 0, 8, 4, 6)]


def in_bytes(budget: int) -> Problem:
    return Problem([LINE] * 10, [np.arange(101)] * 10, budget)


def test_a_share_of_the_heads_is_whole_and_the_rest_are_equal() -> None:
    rule = RazorAttention(importance=SCORES)
    # 15 % of ten, rounded up: units 1 and 7
    levels = rule.choose(in_bytes(200 + 8 * 20)).levels
    assert levels.tolist() == [20, 100, 20, 20, 20, 20, 20, 100, 20, 20]
    levels = rule.choose(in_bytes(200 + 8 * 50)).levels
    assert levels.tolist() == [50, 100, 50, 50, 50, 50, 50, 100, 50, 50]


def test_a_smaller_budget_keeps_fewer_heads_whole_then_none() -> None:
    rule = RazorAttention(importance=SCORES)
    assert sorted(rule.choose(in_bytes(280)).levels.tolist()) == [20] * 9 + [100]
    assert rule.choose(in_bytes(279)).levels.tolist() == [28] * 9 + [27]
    assert rule.choose(in_bytes(100)).levels.tolist() == [10] * 10


def test_sinks_come_besides_the_part_of_the_cache(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    rule = RazorAttention(0.5, 4.0, 6, importance=[[1.0, 0.0]] * 3)
    problem = on_tokens(mass(1, tokens=40), 3 * 40 + 3 * 16)
    assert kept_tokens(problem, rule).tolist() == [[40, 16]] * 3
    problem = on_tokens(mass(1, tokens=40), 3 * 40 + 3 * 16 - 1)
    assert sorted(kept_tokens(problem, rule).ravel().tolist()) == [21, 22, 22, 22, 40, 40]


def test_no_share_and_no_compression_make_equal_caches() -> None:
    assert RazorAttention(0.0).choose(in_bytes(350)).levels.tolist() == [35] * 10
    rule = RazorAttention(compression=1.0, importance=SCORES)
    assert rule.choose(in_bytes(350)).levels.tolist() == [35] * 10


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`retrieval_share` must be within"):
        RazorAttention(retrieval_share=1.5)
    with pytest.raises(ValueError, match="`compression` must be at least 1"):
        RazorAttention(compression=0.5)
