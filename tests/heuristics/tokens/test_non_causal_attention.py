"""Attention inside chunks, in both directions."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import LayerView, NonCausalAttention

MakeView = Callable[..., LayerView]
Show = Callable[..., LayerView]


def naive_mass(view: LayerView, chunk: int, scaled: bool, last: Sequence[int]) -> Tensor:
    """Attention of every query to the held tokens of its chunk, one query at a time, float64.

    Args:
        view: All queries.
        chunk: Tokens of a chunk.
        scaled: Whether logits are scaled.
        last: Newest column that is there when each query is shown.
    """
    mass = torch.zeros(view.valid.shape, dtype=torch.float64)
    for row in range(view.valid.shape[0]):
        for kv_head in range(view.valid.shape[1]):
            held = view.valid[row, kv_head].nonzero().flatten().tolist()
            column = {place: view.positions[row, kv_head, place].item() for place in held}
            start = column[held[0]]
            for index, at in enumerate(view.query_positions.tolist()):
                if at < start:
                    continue
                near = [
                    place
                    for place in held
                    if (column[place] - start) // chunk == (at - start) // chunk
                    and column[place] <= last[index]
                ]
                if not near:
                    continue
                keys = view.keys[row, kv_head, near].double()
                for head in range(kv_head * view.group, (kv_head + 1) * view.group):
                    logits = keys @ view.queries[row, head, index].double()
                    logits *= view.scaling if scaled else 1.0
                    mass[row, kv_head, near] += logits.softmax(dim=0) / view.group
    return mass


def naive_scores(view: LayerView, mass: Tensor, row: int, head: int) -> Tensor:
    """Mass times norm, averaged with both neighbours among the held, zeros beyond the ends."""
    held = view.valid[row, head]
    worth = mass[row, head, held] * view.values[row, head, held].double().norm(dim=-1)
    padded = torch.cat([torch.zeros(1).double(), worth, torch.zeros(1).double()])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    chunk=st.sampled_from([1, 3, 4, 7, 30]),
    ragged=st.booleans(),
    padding=st.integers(0, 15),
    new=st.sampled_from([0, 1, 6, 16]),
    scaled=st.booleans(),
)
def test_scores_equal_attention_inside_chunks_written_out(
    seed: int,
    chunk: int,
    ragged: bool,
    padding: int,
    new: int,
    scaled: bool,
    make_view: MakeView,
    show: Show,
) -> None:
    view = make_view(seed=seed, tokens=16, padding=(0, padding), ragged=ragged, new=new)
    heuristic = NonCausalAttention(chunk, scaled=scaled)
    shown = show(heuristic, view)
    mass = naive_mass(view, chunk, scaled, [10**6] * new)
    scores = heuristic.score(shown)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head]
            torch.testing.assert_close(
                scores[row, head, held].double(),
                naive_scores(view, mass, row, head),
                rtol=1e-4,
                atol=1e-5,
            )


def test_whole_chunks_may_be_shown_one_after_the_other(make_view: MakeView, show: Show) -> None:
    view = make_view(tokens=24, padding=(0, 0))
    heuristic = NonCausalAttention(chunk=4)
    at_once, in_blocks = show(heuristic, view), show(heuristic, view, 8, 4, 12)
    torch.testing.assert_close(in_blocks.state, at_once.state)


def test_a_query_looks_ahead_as_far_as_its_block_reaches(make_view: MakeView, show: Show) -> None:
    view = make_view(tokens=16, padding=(0, 3))
    shown = show(NonCausalAttention(chunk=8), view, 5, 1, 10)
    last = [4] * 5 + [5] + [15] * 10
    wanted = naive_mass(view, 8, False, last)
    found = shown.state[..., 0].double()
    torch.testing.assert_close(found[view.valid], wanted[view.valid], rtol=1e-4, atol=1e-5)


def test_every_query_gives_one_in_all(make_view: MakeView, show: Show) -> None:
    view = make_view(tokens=30, padding=(0, 7))
    state = show(NonCausalAttention(chunk=8), view).state[..., 0]
    torch.testing.assert_close(state.sum(dim=-1)[:, 0], torch.tensor([30.0, 23.0]))


def test_being_early_is_no_advantage(make_view: MakeView, show: Show) -> None:
    view = make_view(tokens=32, padding=(0, 0))
    view.keys.fill_(0.3)
    state = show(NonCausalAttention(chunk=8), view).state
    torch.testing.assert_close(state, torch.ones_like(state))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk": 0}, "`chunk` must be at least 1, but got chunk=0."),
        ({"kernel": 2}, "`kernel` must be odd and at least 1, but got kernel=2."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NonCausalAttention(**settings)
    assert str(error.value) == message
