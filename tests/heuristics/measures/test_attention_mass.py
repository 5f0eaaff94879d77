"""Dropped attention, against one dense softmax per query."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CutView
from kvbudget.heuristics.measures import AttentionMass


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("sinks", [False, True])
def test_loss_is_the_mean_dropped_mass_over_queries_and_group(
    group: int,
    sinks: bool,
    make_cut_view: Callable[..., CutView],
    brute_cuts: Callable[[CutView], tuple[Tensor, Tensor]],
) -> None:
    view = make_cut_view(group=group, sinks=sinks)
    kept, _ = brute_cuts(view)
    wanted = torch.stack(
        [1 - kept[head * group : (head + 1) * group].mean(dim=(0, 1)) for head in range(2)]
    )
    torch.testing.assert_close(AttentionMass().loss(view), wanted, rtol=1e-4, atol=1e-6)


def test_loss_stays_within_zero_and_one(make_cut_view: Callable[..., CutView]) -> None:
    loss = AttentionMass().loss(make_cut_view(kept_tokens=(0, 1, 20)))
    assert (loss <= 1).all()
    assert (loss[:, 0] > loss[:, 1]).all()
