"""Attention from the last queries, pooled over neighbours."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import LayerView, ObservationWindow

MakeView = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def naive_scores(
    mass: list[float], held: list[int], window: int, kernel: int, mean: bool
) -> dict[int, float]:
    """Score of each held place outside the window, from the mass of its held neighbours there."""
    old = held[: max(0, len(held) - window)]
    reach = kernel // 2
    nearby = {
        place: [mass[other] for other in old[max(0, i - reach) : i + reach + 1]]
        for i, place in enumerate(old)
    }
    return {place: sum(near) / kernel if mean else max(near) for place, near in nearby.items()}


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 999),
    window=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5, 7]),
    mean=st.booleans(),
    ragged=st.booleans(),
    padding=st.integers(0, 14),
)
def test_scores_equal_dense_attention_pooled_over_held_neighbours(
    seed: int,
    window: int,
    kernel: int,
    mean: bool,
    ragged: bool,
    padding: int,
    make_view: MakeView,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, ragged=ragged, tokens=14, padding=(0, padding), group=3)
    dense = dense_attention(view).view(2, 2, 3, 14, 14).mean(dim=2)[:, :, -window:]
    seeing = (dense.sum(-1) > 0).sum(-1, keepdim=True).clamp_min(1)
    mass = dense.sum(dim=2) / seeing
    scores = ObservationWindow(window, kernel, mean).score(view)
    assert scores.shape == (2, 2, 14)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head].nonzero().flatten().tolist()
            wanted = naive_scores(mass[row, head].tolist(), held, window, kernel, mean)
            for place, score in wanted.items():
                assert scores[row, head, place].item() == pytest.approx(score, abs=1e-5)


def test_the_observed_window_comes_first_and_its_newest_token_highest(
    make_view: MakeView,
) -> None:
    view = make_view(tokens=12, padding=(0, 5))
    scores = ObservationWindow(window=4).score(view)
    for row in range(2):
        best = scores[row, 0].masked_fill(~view.valid[row, 0], -1.0).argsort(descending=True)
        assert best[:4].tolist() == [11, 10, 9, 8]
    assert (scores[:, :, -4:] > 1).all()
    assert (scores[0, :, :-4] <= 1).all()


def attending_to(view: LayerView, column: int) -> LayerView:
    """The same view, but its queries attend to one column as good as alone."""
    keys = torch.zeros_like(view.keys)
    keys[:, :, column, 0] = 100.0
    queries = torch.zeros_like(view.queries)
    queries[..., 0] = 1.0
    return replace(view, keys=keys, queries=queries, scaling=1.0)


def test_neighbours_share_in_the_attention_of_a_token(make_view: MakeView) -> None:
    view = attending_to(make_view(new=3, padding=(0, 0)), 4)
    scores = ObservationWindow(window=3, kernel=3).score(view)
    assert scores[0, 0, :9].tolist() == pytest.approx([0, 0, 0, 1, 1, 1, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("column", [2, 9])
def test_neither_empty_places_nor_the_window_lend_their_attention(
    column: int, make_view: MakeView
) -> None:
    # column 2 is padding, column 9 inside the window
    view = attending_to(make_view(new=3, padding=(3, 3)), column)
    scores = ObservationWindow(window=3, kernel=7).score(view)
    lent = 1 / 8 if column == 2 else 0.0  # an even share of those held if it is not there
    assert scores[:, :, 3:9].max().item() == pytest.approx(lent, abs=0.02)


def test_fewer_queries_than_the_window_are_enough(
    make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(new=2, ragged=True)
    dense = dense_attention(view).view(2, 2, 2, 2, 12).mean(dim=2).mean(dim=2)
    scores = ObservationWindow(window=3, kernel=1).score(view)
    older = view.valid & (view.age() >= 3)
    torch.testing.assert_close(scores[older].double(), dense[older], rtol=1e-5, atol=1e-5)


def test_a_prompt_shorter_than_the_window_is_ordered_by_recency(make_view: MakeView) -> None:
    scores = ObservationWindow().score(make_view(tokens=5, padding=(0, 0)))
    assert (scores.diff(dim=-1) > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "`window` must be at least 1, but got window=0."),
        ({"kernel": 0}, "`kernel` must be odd and at least 1, but got kernel=0."),
        ({"kernel": 4}, "`kernel` must be odd and at least 1, but got kernel=4."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ObservationWindow(**settings)
    assert str(error.value) == message
