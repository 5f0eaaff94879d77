"""Windows of tokens by the largest attention inside."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import LayerView, WindowKV

MakeView = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    queries=st.integers(1, 9),
    length=st.integers(1, 7),
    top=st.integers(1, 7),
    ragged=st.booleans(),
    padding=st.integers(0, 20),
)
def test_scores_are_means_of_the_largest_attentions_in_each_window(
    seed: int,
    queries: int,
    length: int,
    top: int,
    ragged: bool,
    padding: int,
    make_view: MakeView,
    dense_attention: Oracle,
) -> None:
    top = min(top, length)
    view = make_view(seed=seed, ragged=ragged, tokens=20, padding=(0, padding))
    rows = dense_attention(view).view(2, 2, 2, 20, 20).mean(dim=2)[:, :, -queries:]
    mass = rows.sum(dim=2) / (rows.sum(-1) > 0).sum(-1, keepdim=True).clamp_min(1)
    scores = WindowKV(queries, length, top).score(view)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head].nonzero().flatten().tolist()
            older = held[: max(0, len(held) - queries)]
            for start in range(0, len(older), length):
                window = older[start : start + length]
                largest = sorted(mass[row, head, place].item() for place in window)[-top:]
                wanted = sum(largest) / len(largest)
                for place in window:
                    assert scores[row, head, place].item() == pytest.approx(wanted, abs=1e-5)


def test_the_tokens_of_the_last_queries_come_first(make_view: MakeView) -> None:
    scores = WindowKV(queries=4, length=3, top=1).score(make_view(padding=(0, 0)))
    assert scores.argsort(dim=-1, descending=True)[0, 0, :4].tolist() == [11, 10, 9, 8]
    assert (scores[..., -4:] > 1).all()
    assert (scores[..., :-4] <= 1).all()


def test_a_short_prompt_is_ordered_by_recency(make_view: MakeView) -> None:
    assert (WindowKV().score(make_view(padding=(0, 0))).diff(dim=-1) > 0).all()


def test_the_defaults_are_those_of_the_authors() -> None:
    assert WindowKV() == WindowKV(queries=32, length=8, top=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "`queries` must be at least 1, but got queries=0."),
        ({"length": 0}, "`length` must be at least 1, but got length=0."),
        ({"top": 0}, "`top` must be from 1 to length=8, but got top=0."),
        ({"top": 9}, "`top` must be from 1 to length=8, but got top=9."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        WindowKV(**settings)
    assert str(error.value) == message
