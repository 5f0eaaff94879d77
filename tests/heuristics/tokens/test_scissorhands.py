"""Counts of queries that gave less than an even share."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import LayerView, Scissorhands

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def counts(view: LayerView, dense: Tensor, history: int) -> Tensor:
    """Minus the count of each token, walked through query by query."""
    batch, kv_heads, tokens = view.valid.shape
    mean = dense.view(batch, kv_heads, view.group, view.new, tokens).mean(dim=2)
    own, found = view.query_positions.tolist(), torch.zeros(batch, kv_heads, tokens)
    for row in range(batch):
        for head in range(kv_heads):
            columns, shares = view.positions[row, head].tolist(), mean[row, head].tolist()
            held = view.valid[row, head].nonzero().flatten().tolist()
            for query in range(max(0, view.new - history), view.new):
                seen = [place for place in held if columns[place] <= own[query]]
                low = [place for place in seen if shares[query][place] < 1 / len(seen)]
                found[row, head, low] -= 1
    return found


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    history=st.sampled_from([1, 3, 11, 400]),
    ragged=st.booleans(),
    cut=st.integers(0, 30),
)
def test_scores_are_minus_the_counts_over_the_last_queries(
    seed: int,
    history: int,
    ragged: bool,
    cut: int,
    make_view: MakeView,
    show: Show,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, tokens=30, ragged=ragged, padding=(0, 9))
    heuristic = Scissorhands(history)
    scores = heuristic.score(show(heuristic, view, cut, 30 - cut))
    wanted = counts(view, dense_attention(view), history)
    assert torch.equal(scores[view.valid], wanted[view.valid])


def test_bits_are_exact_under_autocast_and_other_default_dtypes(
    make_view: MakeView, show: Show, dense_attention: Oracle
) -> None:
    view = make_view(tokens=30)
    wanted = counts(view, dense_attention(view), 400)[view.valid]
    before = show(Scissorhands(), view, 7, 23)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = show(Scissorhands(), replace(before.newest(0), state=before.state))
    assert torch.equal(after.state, before.state)
    torch.set_default_dtype(torch.float64)
    try:
        double = show(Scissorhands(), view, 7, 23)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(Scissorhands().score(double)[view.valid], wanted)


@pytest.mark.parametrize("history", [400, 408])
def test_queries_before_the_history_are_forgotten(
    history: int, make_view: MakeView, show: Show, dense_attention: Oracle
) -> None:
    view = make_view(batch=1, kv_heads=1, tokens=450, padding=(0,))
    heuristic = Scissorhands(history)
    wanted = counts(view, dense_attention(view), history)
    assert wanted.min() < -200
    assert not torch.equal(wanted, counts(view, dense_attention(view), 450))
    for blocks in ([450], [20, 430], [300, 50, 100]):
        assert torch.equal(heuristic.score(show(heuristic, view, *blocks)), wanted)


@pytest.mark.parametrize("history", [0, 409])
def test_an_impossible_history_is_refused(history: int) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Scissorhands(history)
    assert str(error.value) == f"`history` must be from 1 to 408, but got history={history}."
