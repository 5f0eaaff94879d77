"""Change of the projected output, against the formula written with loops."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CutView
from kvbudget.heuristics.measures import OutputError, output_error
from kvbudget.heuristics.measures.output_error import squares, squares_by_gram

MakeCutView = Callable[..., CutView]
Brute = Callable[[CutView], tuple[Tensor, Tensor]]


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("hidden", [4, 50])  # below and above group * value_dim
def test_loss_equals_the_formula_written_with_loops(
    group: int, hidden: int, make_cut_view: MakeCutView, brute_cuts: Brute
) -> None:
    view = make_cut_view(group=group, hidden=hidden)
    _, delta = brute_cuts(view)
    wanted = torch.zeros(2, view.levels, dtype=torch.float64)
    for kv_head in range(2):
        for row in range(view.future):
            for level in range(view.levels):
                change = sum(
                    delta[head, row, level] @ view.output_weight[head].double()
                    for head in range(kv_head * group, (kv_head + 1) * group)
                )
                assert isinstance(change, Tensor)
                error = change.norm() / view.residual_norm[row].double()
                wanted[kv_head, level] += error**2 / view.future
    torch.testing.assert_close(OutputError().loss(view), wanted, rtol=1e-4, atol=1e-8)


def test_the_gram_path_equals_the_direct_path() -> None:
    delta, weight = torch.randn(3, 40, 6), torch.randn(3, 6, 50)
    torch.testing.assert_close(
        squares_by_gram(delta, weight @ weight.mT), squares(delta, weight), rtol=1e-4, atol=1e-5
    )


def test_the_cheaper_path_is_taken(
    make_cut_view: MakeCutView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> Tensor:
        raise AssertionError("the dearer path was taken")

    with monkeypatch.context() as patch:
        patch.setattr(output_error, "squares", refused)
        assert OutputError().loss(make_cut_view(hidden=50)).sum() > 0
    with monkeypatch.context() as patch:
        patch.setattr(output_error, "squares_by_gram", refused)
        assert OutputError().loss(make_cut_view(hidden=4)).sum() > 0


def test_errors_of_heads_that_share_a_cache_can_cancel(make_cut_view: MakeCutView) -> None:
    view = make_cut_view(kv_heads=1, group=2)
    queries = view.queries[:1].expand(2, -1, -1)
    weight = torch.stack([view.output_weight[0], -view.output_weight[0]])
    cancelled = replace(view, queries=queries, output_weight=weight)
    assert OutputError().loss(cancelled).max() < 1e-8
    assert OutputError().loss(view)[0, 0] > 1e-2


def test_a_larger_residual_makes_the_same_change_matter_less(make_cut_view: MakeCutView) -> None:
    view = make_cut_view()
    louder = replace(view, residual_norm=view.residual_norm * 10)
    torch.testing.assert_close(OutputError().loss(louder) * 100, OutputError().loss(view))


def test_a_view_without_the_residual_is_refused(make_cut_view: MakeCutView) -> None:
    with pytest.raises(ValueError, match="must hold `residual_norm`"):
        OutputError().loss(replace(make_cut_view(), residual_norm=None))
