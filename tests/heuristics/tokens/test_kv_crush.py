"""Important tokens and representatives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import Anchor, KVCrush, LayerView, ObservationWindow
from kvbudget.heuristics.tokens.kv_crush import _spread

MakeView = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


def kept_by(dense: Tensor, view: LayerView, row: int, head: int) -> set[int]:
    """Columns in the half of its tokens that a query head attends to most, last 5 queries."""
    kv_head = head // view.group
    held = view.valid[row, kv_head].nonzero().flatten().tolist()
    mass = dense[row, head, -5:].sum(dim=0)
    ranked = sorted(held, key=lambda place: -mass[place].item())
    half = (len(held) + 1) // 2
    return {view.positions[row, kv_head, place].item() for place in ranked[:half]}


@pytest.mark.parametrize("anchor", list(Anchor))
@pytest.mark.parametrize("ragged", [False, True])
def test_distances_count_the_heads_that_differ_from_the_anchor(
    anchor: Anchor, ragged: bool, make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(tokens=21, ragged=ragged, kv_heads=3, group=2, seed=5)
    dense = dense_attention(view)
    found = KVCrush(window=5, anchor=anchor)._distance(view)
    for row in range(2):
        bits = [kept_by(dense, view, row, head) for head in range(6)]
        for kv_head in range(3):
            for place in view.valid[row, kv_head].nonzero().flatten().tolist():
                column = view.positions[row, kv_head, place].item()
                wanted = sum(
                    (column in kept) != (anchor is Anchor.ALTERNATING and head % 2 == 1)
                    for head, kept in enumerate(bits)
                )
                assert found[row, kv_head, place].item() == wanted


@pytest.mark.parametrize("tokens", [10, 57, 200])
def test_representatives_are_spread_over_the_sorted_tokens(tokens: int) -> None:
    distance = torch.randint(0, 9, (1, 1, tokens), generator=torch.Generator().manual_seed(1))
    valid = torch.ones(1, 1, tokens, dtype=torch.bool)
    taken = _spread(distance, valid)[0, 0].argsort(descending=True)
    position = distance[0, 0].argsort(stable=True).argsort()
    for number in range(2, tokens):
        places = position[taken[:number]].sort().values
        gaps = places.diff(prepend=torch.tensor([-1]), append=torch.tensor([tokens]))
        # three distances occur at most, the largest of them less than thrice the mean
        assert gaps.max() <= 3 * tokens / number + 1


@pytest.mark.parametrize("ragged", [False, True])
def test_most_of_a_capacity_goes_by_attention_and_the_rest_is_spread(
    ragged: bool, make_view: MakeView
) -> None:
    view = make_view(tokens=40, ragged=ragged, seed=9)
    heuristic = KVCrush(window=4, kernel=3, share=0.25)
    scores = heuristic.score(view)
    attention = ObservationWindow(4, 3).score(view)
    spread = _spread(heuristic._distance(view), view.valid)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head]
            order = scores[row, head, held].argsort(descending=True).tolist()
            important, even = (
                each[row, head, held].argsort(descending=True, stable=True).tolist()
                for each in (attention, spread)
            )
            for capacity in range(1, len(order) + 1):
                first = important[: int(capacity * 0.75)]
                rest = [token for token in even if token not in first]
                assert set(order[:capacity]) == {*first, *rest[: capacity - len(first)]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": -0.1}, "`share` must be between 0 and 1, but got share=-0.1."),
        ({"window": 0}, "`window` must be at least 1, but got window=0."),
        ({"kernel": 4}, "`kernel` must be odd and at least 1, but got kernel=4."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        KVCrush(**settings)
    assert str(error.value) == message
