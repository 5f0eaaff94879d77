"""Accumulated attention times the norm of the value."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import HeavyHitter, LayerView, ValueMass

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


@pytest.mark.parametrize("order", [1.0, 2.0])
@pytest.mark.parametrize("ragged", [False, True])
def test_scores_are_column_sums_times_norms(
    order: float, ragged: bool, make_view: MakeView, show: Show, dense_attention: Oracle
) -> None:
    view = make_view(ragged=ragged, group=3)
    heuristic = ValueMass(order)
    scores = heuristic.score(show(heuristic, view))
    mass = dense_attention(view).view(2, 2, 3, 12, 12).mean(dim=2).sum(dim=2)
    for row, head, place in view.valid.nonzero().tolist():
        value = [abs(number) for number in view.values[row, head, place].tolist()]
        norm = sum(number**order for number in value) ** (1 / order)
        wanted = mass[row, head, place].item() * norm
        assert scores[row, head, place].item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_a_token_without_a_value_is_worth_nothing(make_view: MakeView, show: Show) -> None:
    view = make_view(padding=(0, 0))
    view.values[:, :, 4] = 0.0
    scores = ValueMass().score(show(ValueMass(), view))
    assert (scores[:, :, 4] == 0).all()
    assert (scores[:, :, :4] > 0).all()


def test_values_of_one_size_change_no_order(make_view: MakeView, show: Show) -> None:
    view = make_view(padding=(0, 0))
    view.values.fill_(0.5)
    found, wanted = (each.score(show(each, view)) for each in (ValueMass(), HeavyHitter()))
    torch.testing.assert_close(found, 3 * wanted)  # six channels of one half


@pytest.mark.parametrize("order", [0.0, -1.0, float("nan")])
def test_an_impossible_order_is_refused(order: float) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ValueMass(order)
    assert str(error.value) == f"`order` must be above 0, but got order={order}."
