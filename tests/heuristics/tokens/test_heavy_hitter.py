"""Accumulated attention."""

from collections.abc import Callable

import torch
from torch import Tensor

from kvbudget.heuristics import HeavyHitter, LayerView

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def test_scores_are_column_sums_of_dense_attention(
    make_view: MakeView, show: Show, dense_attention: Oracle
) -> None:
    view = make_view(group=3, padding=(0, 4))
    wanted = dense_attention(view).view(2, 2, 3, 12, 12).mean(dim=2).sum(dim=2)
    found = HeavyHitter().score(show(HeavyHitter(), view))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_scores_of_a_sequence_add_up_to_its_number_of_queries(
    make_view: MakeView, show: Show
) -> None:
    sums = HeavyHitter().score(show(HeavyHitter(), make_view(padding=(0, 4)))).sum(dim=-1)
    torch.testing.assert_close(sums, torch.tensor([[12.0, 12.0], [8.0, 8.0]]))


def test_a_prompt_in_two_parts_scores_like_one(make_view: MakeView, show: Show) -> None:
    view = make_view(padding=(0, 2))
    whole, parts = show(HeavyHitter(), view), show(HeavyHitter(), view, 7, 5)
    torch.testing.assert_close(HeavyHitter().score(parts), HeavyHitter().score(whole))


def test_what_was_gathered_is_what_counts_not_the_queries_still_there(
    make_view: MakeView,
) -> None:
    state = torch.rand(2, 2, 12, 1)
    assert torch.equal(HeavyHitter().score(make_view(state=state)), state[..., 0])
