"""First and most recent tokens."""

from collections.abc import Callable

import pytest
import torch

from kvbudget.heuristics import LayerView, SinkRecent

MakeView = Callable[..., LayerView]


def held_best_first(view: LayerView, heuristic: SinkRecent, row: int, head: int) -> list[int]:
    scores = heuristic.score(view)[row, head].masked_fill(~view.valid[row, head], -torch.inf)
    order = scores.argsort(descending=True)[: int(view.valid[row, head].sum())]
    return view.positions[row, head][order].tolist()


def test_sinks_come_first_and_then_the_newest(make_view: MakeView) -> None:
    view = make_view(tokens=6, padding=(0, 0))
    assert held_best_first(view, SinkRecent(sinks=2), 0, 0) == [0, 1, 5, 4, 3, 2]


def test_sinks_are_the_first_real_tokens_not_padding(make_view: MakeView) -> None:
    view = make_view(tokens=8, padding=(0, 3))
    assert held_best_first(view, SinkRecent(sinks=2), 1, 1) == [3, 4, 7, 6, 5]


def test_every_kv_head_counts_its_own_tokens(make_view: MakeView) -> None:
    view = make_view(ragged=True, tokens=20, seed=3)
    held = [view.positions[1, head][view.valid[1, head]].tolist() for head in range(2)]
    assert held[0] != held[1]
    for head in range(2):
        columns = held[head]
        wanted = columns[:3] + columns[3:][::-1]
        assert held_best_first(view, SinkRecent(sinks=3), 1, head) == wanted


def test_without_sinks_only_recency_counts(make_view: MakeView) -> None:
    view = make_view(tokens=5, padding=(0, 0))
    assert held_best_first(view, SinkRecent(sinks=0), 0, 0) == [4, 3, 2, 1, 0]


def test_more_sinks_than_tokens_keep_the_order_of_the_sequence(make_view: MakeView) -> None:
    view = make_view(tokens=4, padding=(0, 0))
    assert held_best_first(view, SinkRecent(sinks=9), 0, 0) == [0, 1, 2, 3]


def test_negative_sinks_are_refused() -> None:
    with pytest.raises(ValueError, match="`sinks` must be at least 0, but got sinks=-1"):
        SinkRecent(sinks=-1)
