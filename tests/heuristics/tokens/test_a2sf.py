"""Accumulated attention that is forgotten."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import A2SF, HeavyHitter, LayerView

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    forgetting=st.floats(0.0, 1.0),
    ragged=st.booleans(),
    cut=st.integers(0, 14),
)
def test_scores_are_attention_weighted_by_its_age_in_queries(
    seed: int,
    forgetting: float,
    ragged: bool,
    cut: int,
    make_view: MakeView,
    show: Show,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, tokens=14, ragged=ragged)
    dense = dense_attention(view).view(2, 2, 2, 14, 14).mean(dim=2)
    wanted = torch.zeros(2, 2, 14, dtype=torch.float64)
    for query in range(14):
        wanted = forgetting * wanted + dense[:, :, query]
    heuristic = A2SF(forgetting)
    found = heuristic.score(show(heuristic, view, cut, 14 - cut))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_who_forgets_nothing_is_h2o(make_view: MakeView, show: Show) -> None:
    view = make_view(tokens=300, padding=(0, 3))
    found, wanted = (each.score(show(each, view)) for each in (A2SF(1.0), HeavyHitter()))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_who_forgets_everything_knows_the_newest_query(make_view: MakeView, show: Show) -> None:
    view = make_view(tokens=300, padding=(0, 3))
    found = A2SF(0.0).score(show(A2SF(0.0), view))
    torch.testing.assert_close(found, view.recent_attention(1))


@pytest.mark.parametrize("forgetting", [-0.1, 1.01, float("nan")])
def test_an_impossible_factor_is_refused(forgetting: float) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        A2SF(forgetting)
    assert str(error.value) == f"`forgetting` must be from 0 to 1, but got forgetting={forgetting}."
