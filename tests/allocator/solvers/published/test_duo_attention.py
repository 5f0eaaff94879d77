from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import DuoAttention

GATES = [[0.9, 0.1], [0.3, 0.8], [0.2, 0.7]]


def test_as_many_gated_heads_are_whole_as_the_budget_allows(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    loss = mass(1, tokens=100)
    rule = DuoAttention(sink_tokens=2, recent_tokens=8, importance=GATES)
    for budget, kept in (
        (200 + 40, [[100, 10], [10, 100], [10, 10]]),
        (200 + 4 * 30 + 1, [[100, 31], [30, 100], [30, 30]]),
        (300 + 30, [[100, 10], [10, 100], [10, 100]]),
        (600, [[100, 100]] * 3),
    ):
        assert kept_tokens(on_tokens(loss, budget), rule).tolist() == kept


def test_below_the_size_of_a_streaming_head_all_are_equal(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    loss = mass(2, tokens=400)
    assert kept_tokens(on_tokens(loss, 600), DuoAttention()).tolist() == [[100, 100]] * 3
    kept = kept_tokens(on_tokens(loss, 6 * 320 + 80), DuoAttention(importance=GATES))
    assert kept.tolist() == [[400, 320], [320, 320], [320, 320]]


def test_in_a_short_context_no_head_is_whole_and_importance_does_not_matter(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    # every cache fits the 320 tokens of a small one
    problem = on_tokens(mass(4, tokens=200), 6 * 50)
    for importance in (None, GATES, [1.0, 2.0, 3.0]):
        kept = kept_tokens(problem, DuoAttention(importance=importance))
        assert kept.tolist() == [[50, 50]] * 3


def test_by_default_the_head_that_could_lose_most_is_whole(
    mass: Callable[..., Any], on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    loss = mass(3, tokens=60)
    kept = kept_tokens(on_tokens(loss, 60 + 5 * 4), DuoAttention(1, 3))
    assert kept.ravel()[(loss[..., 0] - loss[..., -1]).argmax()] == 60
    assert sorted(kept.ravel().tolist()) == [4] * 5 + [60]


def test_without_an_origin_streaming_heads_start_at_their_lowest_level() -> None:
    problem = Problem([np.arange(9.0, -1, -1)] * 3, [np.arange(2, 12)] * 3, 11 + 4 + 1)
    rule = DuoAttention(importance=[1.0, 3.0, 2.0])
    assert rule.choose(problem).levels.tolist() == [1, 9, 0]


@pytest.mark.parametrize("name", ["sink_tokens", "recent_tokens"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0"):
        DuoAttention(**{name: -1})
