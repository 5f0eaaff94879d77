"""Mean attention per query that could see a token."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import LayerView, ZipCache

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    window=st.none() | st.integers(1, 9),
    ragged=st.booleans(),
    cut=st.integers(0, 12),
)
def test_scores_are_column_sums_over_the_number_of_queries_that_see_the_column(
    seed: int,
    window: int | None,
    ragged: bool,
    cut: int,
    make_view: MakeView,
    show: Show,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, window=window, ragged=ragged, padding=(0, 4))
    dense = dense_attention(view).view(2, 2, 2, 12, 12).mean(dim=2)
    scores = ZipCache().score(show(ZipCache(), view, cut, 12 - cut))
    for row, head, place in view.valid.nonzero().tolist():
        column = int(view.positions[row, head, place])
        seeing = [
            query
            for query, own in enumerate(view.query_positions.tolist())
            if column <= own and (window is None or column > own - window)
        ]
        gained = sum(dense[row, head, query, place].item() for query in seeing)
        wanted = gained / len(seeing) if seeing else 0.0
        assert scores[row, head, place].item() == pytest.approx(wanted, abs=1e-5)


def test_the_first_token_has_no_advantage_from_its_age(make_view: MakeView, show: Show) -> None:
    view = make_view(padding=(0, 0))
    view.queries.zero_()  # every query attends evenly to what it sees
    scores = ZipCache().score(show(ZipCache(), view))
    wanted = [sum(1 / seen for seen in range(j + 1, 13)) / (12 - j) for j in range(12)]
    torch.testing.assert_close(scores[0, 0], torch.tensor(wanted))
