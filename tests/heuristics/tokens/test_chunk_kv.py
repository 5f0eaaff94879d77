"""Chunks of tokens by the attention they receive together."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import ChunkKV, LayerView, ObservationWindow

MakeView = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    window=st.integers(1, 9),
    length=st.integers(1, 7),
    ragged=st.booleans(),
    padding=st.integers(0, 20),
)
def test_scores_are_means_of_attention_over_each_chunk(
    seed: int,
    window: int,
    length: int,
    ragged: bool,
    padding: int,
    make_view: MakeView,
    dense_attention: Oracle,
) -> None:
    view = make_view(seed=seed, ragged=ragged, tokens=20, padding=(0, padding))
    rows = dense_attention(view).view(2, 2, 2, 20, 20).mean(dim=2)[:, :, -window:]
    mass = rows.sum(dim=2) / (rows.sum(-1) > 0).sum(-1, keepdim=True).clamp_min(1)
    scores = ChunkKV(window, length).score(view)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head].nonzero().flatten().tolist()
            older = held[: max(0, len(held) - window)]
            for start in range(0, len(older), length):
                chunk = older[start : start + length]
                wanted = sum(mass[row, head, place].item() for place in chunk) / len(chunk)
                for place in chunk:
                    assert scores[row, head, place].item() == pytest.approx(wanted, abs=1e-5)


def test_chunks_of_one_token_are_snapkv_without_pooling(make_view: MakeView) -> None:
    view = make_view(ragged=True, tokens=40)
    found = ChunkKV(window=5, length=1).score(view)
    wanted = ObservationWindow(window=5, kernel=1).score(view)
    assert (found == wanted)[view.valid].all()


def test_the_tokens_of_the_last_queries_come_first(make_view: MakeView) -> None:
    scores = ChunkKV(window=4, length=3).score(make_view(padding=(0, 0)))
    assert scores.argsort(dim=-1, descending=True)[0, 0, :4].tolist() == [11, 10, 9, 8]
    assert (scores[..., :-4] <= 1).all()


@pytest.mark.parametrize("name", ["window", "length"])
def test_impossible_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ChunkKV(**{name: 0})
    assert str(error.value) == f"`{name}` must be at least 1, but got {name}=0."
