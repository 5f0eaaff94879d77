"""Second-order divergence, against the formula written with loops."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CutView
from kvbudget.heuristics.measures import Divergence

MakeCutView = Callable[..., CutView]


@pytest.mark.parametrize("group", [1, 3])
def test_loss_is_half_the_mean_squared_change_of_the_log_likelihood(
    group: int,
    make_cut_view: MakeCutView,
    brute_cuts: Callable[[CutView], tuple[Tensor, Tensor]],
) -> None:
    view = make_cut_view(group=group)
    assert view.gradient is not None
    _, delta = brute_cuts(view)
    wanted = torch.zeros(2, view.levels, dtype=torch.float64)
    for kv_head in range(2):
        own = range(kv_head * group, (kv_head + 1) * group)
        for level in range(view.levels):
            for sample in view.gradient.double():
                for row in range(view.future):
                    change = sum(float(sample[h, row] @ delta[h, row, level]) for h in own)
                    wanted[kv_head, level] += 0.5 * change**2 / (2 * view.future)
    torch.testing.assert_close(Divergence().loss(view), wanted, rtol=1e-4, atol=1e-8)


def test_a_change_that_no_prediction_notices_costs_nothing(make_cut_view: MakeCutView) -> None:
    view = make_cut_view()
    assert view.gradient is not None
    blind = replace(view, gradient=torch.zeros_like(view.gradient))
    assert not Divergence().loss(blind).any()


def test_a_view_without_gradients_is_refused(make_cut_view: MakeCutView) -> None:
    with pytest.raises(ValueError, match="must hold `gradient`"):
        Divergence().loss(replace(make_cut_view(), gradient=None))
