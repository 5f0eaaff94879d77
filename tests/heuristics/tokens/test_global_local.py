"""The larger of accumulated and recent attention."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import GlobalLocal, HeavyHitter, LayerView

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    window=st.integers(1, 14),
    weight=st.floats(0.0, 3.0),
    ragged=st.booleans(),
)
def test_scores_are_the_larger_of_two_aligned_column_sums(
    seed: int,
    window: int,
    weight: float,
    ragged: bool,
    make_view: MakeView,
    show: Show,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, ragged=ragged)
    heuristic = GlobalLocal(window, weight)
    scores = heuristic.score(show(heuristic, view))
    dense = dense_attention(view).view(2, 2, 2, 12, 12).mean(dim=2)
    for row in range(2):
        for head in range(2):
            everything = dense[row, head].sum(dim=0)
            last = dense[row, head, -window:]
            recent = last.sum(dim=0) / max(1, int((last.sum(dim=-1) > 0).sum()))
            aligned = everything / max(everything.sum().item(), 1e-9) * recent.sum()
            for place in view.valid[row, head].nonzero().flatten().tolist():
                wanted = max(weight * aligned[place].item(), recent[place].item())
                assert scores[row, head, place].item() == pytest.approx(wanted, abs=1e-5)


def test_without_queries_there_is_no_score(make_view: MakeView) -> None:
    view = make_view(new=0, state=torch.rand(2, 2, 12, 1))
    assert torch.equal(GlobalLocal().score(view), torch.zeros(2, 2, 12))


def test_a_large_weight_orders_by_accumulated_attention(make_view: MakeView, show: Show) -> None:
    view = show(HeavyHitter(), make_view(batch=1, padding=(0,)))
    found = GlobalLocal(window=4, global_weight=1e6).score(view)
    assert torch.equal(found.argsort(dim=-1), HeavyHitter().score(view).argsort(dim=-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "`window` must be at least 1, but got window=0."),
        (
            {"global_weight": -1.0},
            "`global_weight` must be at least 0, but got global_weight=-1.0.",
        ),
        (
            {"global_weight": float("inf")},
            "`global_weight` must be at least 0, but got global_weight=inf.",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        GlobalLocal(**settings)  # type: ignore[arg-type]
    assert str(error.value) == message
