"""When a token last got an even share."""

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import Corm, LayerView

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def enough(view: LayerView, dense: Tensor, row: int, head: int, query: int, place: int) -> bool:
    """Whether a query gave a token it sees at least an even share."""
    seen = view.valid[row, head] & (view.positions[row, head] <= view.query_positions[query])
    share = dense[row].unflatten(0, (-1, view.group)).mean(dim=1)[head, query, place]
    return bool(seen[place]) and share.item() >= 1 / int(seen.sum())


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), padding=st.integers(0, 8), cut=st.integers(0, 12))
def test_scores_are_minus_the_queries_since(
    seed: int, padding: int, cut: int, make_view: MakeView, show: Show, dense_attention: Oracle
) -> None:
    view = make_view(seed=seed, padding=(0, padding))
    dense = dense_attention(view)
    scores = Corm().score(show(Corm(), view, cut, 12 - cut))
    for row, head, place in view.valid.nonzero().tolist():
        gave = [query for query in range(12) if enough(view, dense, row, head, query, place)]
        # who never got enough counts from before its own query
        assert scores[row, head, place] == (gave[-1] if gave else place - 1) - 11


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), window=st.integers(1, 12))
def test_above_minus_a_window_are_the_tokens_that_corm_keeps(
    seed: int, window: int, make_view: MakeView, show: Show, dense_attention: Oracle
) -> None:
    view = make_view(seed=seed)
    dense = dense_attention(view)
    kept = Corm().score(show(Corm(), view)) > -window
    recent = range(12 - window, 12)
    for row, head, place in view.valid.nonzero().tolist():
        if place < 12 - window:  # the newest are kept anyway
            gave = any(enough(view, dense, row, head, query, place) for query in recent)
            assert kept[row, head, place] == gave


def test_without_new_queries_nothing_grows_older(make_view: MakeView, show: Show) -> None:
    view = show(Corm(), make_view())
    assert view.state is not None
    again = show(Corm(), make_view(new=0, state=view.state))
    assert torch.equal(again.known_state(1), view.state)
