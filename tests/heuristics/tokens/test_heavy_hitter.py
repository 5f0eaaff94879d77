"""Accumulated attention."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kvbudget.heuristics import HeavyHitter, LayerView

MakeView = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def test_scores_are_column_sums_of_dense_attention(
    make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(group=3, padding=(0, 4))
    wanted = dense_attention(view).view(2, 2, 3, 12, 12).mean(dim=2).sum(dim=2)
    torch.testing.assert_close(HeavyHitter().score(view).double(), wanted, rtol=1e-5, atol=1e-5)


def test_scores_of_a_sequence_add_up_to_its_number_of_queries(make_view: MakeView) -> None:
    sums = HeavyHitter().score(make_view(padding=(0, 4))).sum(dim=-1)
    torch.testing.assert_close(sums, torch.tensor([[12.0, 12.0], [8.0, 8.0]]))


def test_a_prompt_in_two_parts_scores_like_one(make_view: MakeView) -> None:
    whole = make_view(padding=(0, 2))
    first = replace(
        whole, queries=whole.queries[:, :, :7], query_positions=whole.query_positions[:7]
    )
    rest = replace(
        whole,
        queries=whole.queries[:, :, 7:],
        query_positions=whole.query_positions[7:],
        past_attention=first.total_attention(),
    )
    torch.testing.assert_close(HeavyHitter().score(rest), HeavyHitter().score(whole))
