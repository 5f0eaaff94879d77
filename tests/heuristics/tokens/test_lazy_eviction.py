"""Absence, and the longest absence so far."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import LayerView, LazyEviction

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -500 else 0.0


def hope(active: list[int], born: int, newest: int) -> float:
    """Score of one token by the queries, in order, that made it active."""
    last, interval = born, 0
    for query in active:
        interval = max(interval, query - last)
        last = query
    if interval == 0:
        return 1.0 if last == newest else 0.0
    return 2 * sigmoid((last - newest) / interval) + 2 * sigmoid(-1 / interval)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    threshold=st.sampled_from([0.001, 0.05, 0.2, 0.5]),
    padding=st.integers(0, 8),
    cut=st.integers(0, 20),
)
def test_scores_follow_from_the_queries_that_made_a_token_active(
    seed: int,
    threshold: float,
    padding: int,
    cut: int,
    make_view: MakeView,
    show: Show,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, tokens=20, padding=(0, padding))
    dense = dense_attention(view).view(2, 2, 2, 20, 20).mean(dim=2)
    heuristic = LazyEviction(threshold)
    scores = heuristic.score(show(heuristic, view, cut, 20 - cut))
    for row, head, place in view.valid.nonzero().tolist():
        active = (dense[row, head, :, place] >= threshold).nonzero().flatten().tolist()
        wanted = hope(active, born=place, newest=19)
        assert scores[row, head, place].item() == pytest.approx(wanted, abs=1e-5)


def test_blocks_longer_than_a_chunk_are_walked_through_in_order(
    make_view: MakeView, show: Show
) -> None:
    view = make_view(tokens=200, padding=(0, 70))
    heuristic = LazyEviction(0.02)
    whole = show(heuristic, view)
    single = show(heuristic, view, *[1] * 200)
    assert whole.state is not None
    assert single.state is not None
    assert torch.equal(whole.state, single.state)
    assert whole.state[..., 0].max() > 64 < whole.state[..., 1].max()


@pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        LazyEviction(threshold)
    assert str(error.value) == (
        f"`threshold` must be above 0 and at most 1, but got threshold={threshold}."
    )
