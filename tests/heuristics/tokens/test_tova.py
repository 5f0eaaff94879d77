"""The newest query's attention over all heads."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import LayerView, Tova

MakeView = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def test_scores_are_the_mean_over_all_heads_of_the_newest_row(
    make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(kv_heads=3, group=2)
    wanted = dense_attention(view)[:, :, -1].mean(dim=1)
    scores = Tova().score(view).double()
    for head in range(3):
        torch.testing.assert_close(scores[:, head], wanted, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), group=st.integers(1, 2), sinks=st.booleans())
def test_heads_that_hold_other_tokens_are_matched_by_column(
    seed: int, group: int, sinks: bool, make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(seed=seed, kv_heads=3, group=group, tokens=10, ragged=True, sinks=sinks)
    newest = dense_attention(view).view(2, 3, group, 10, 10).mean(dim=2)[:, :, -1]
    scores = Tova().score(view)
    for row in range(2):
        by_column: dict[int, float] = {}
        held = [
            (head, place, int(view.positions[row, head, place]))
            for head in range(3)
            for place in range(10)
            if view.valid[row, head, place]
        ]
        for head, place, column in held:
            by_column[column] = by_column.get(column, 0.0) + newest[row, head, place].item()
        for head, place, column in held:
            found = scores[row, head, place].item()
            assert found == pytest.approx(by_column[column] / 3, abs=1e-5)


def test_an_empty_place_lends_nothing_whatever_column_it_names(make_view: MakeView) -> None:
    view = make_view(ragged=True)
    wanted = Tova().score(view)[view.valid]
    named = view.positions.masked_fill(~view.valid, int(view.positions[0, 0].max()))
    assert torch.equal(Tova().score(replace(view, positions=named))[view.valid], wanted)
