"""Each cache's own change of the attention output is what the model is run with."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CutView
from kvbudget.heuristics.measures import Ablation

MakeCutView = Callable[..., CutView]


@pytest.mark.parametrize("group", [1, 3])
def test_the_model_is_run_with_the_change_of_one_cache_at_a_time(
    group: int, make_cut_view: MakeCutView, brute_cuts: Callable[[CutView], tuple[Tensor, Tensor]]
) -> None:
    asked: dict[int, Tensor] = {}

    def divergence(kv_head: int, change: Tensor) -> Tensor:
        asked[kv_head] = change
        return torch.arange(len(change), dtype=torch.float64) + 10 * kv_head

    view = replace(make_cut_view(group=group, future=150), divergence=divergence)
    loss = Ablation().loss(view)
    _, delta = brute_cuts(view)  # [heads, future, levels, value_dim]
    for kv_head in range(2):
        for level in range(3):
            for member in range(group):
                expected = delta[kv_head * group + member, :, level]
                ours = asked[kv_head][level, member].double()
                torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    assert loss.tolist() == [[0.0, 1.0, 2.0, 0.0], [10.0, 11.0, 12.0, 0.0]]


def test_a_level_that_keeps_everything_is_not_run(make_cut_view: MakeCutView) -> None:
    def divergence(kv_head: int, change: Tensor) -> Tensor:
        raise AssertionError("nothing is cut")

    view = replace(make_cut_view(kept_tokens=(20, 20)), divergence=divergence)
    assert not Ablation().loss(view).any()


def test_a_view_without_the_model_is_refused(make_cut_view: MakeCutView) -> None:
    with pytest.raises(ValueError, match="must hold `divergence` for Ablation"):
        Ablation().loss(replace(make_cut_view(), divergence=None))
