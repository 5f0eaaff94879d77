"""One order for all capacities, against a selection in two stages at each."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.heuristics.two_stages import two_stage_score


def selected(first: list[float], second: list[float], capacity: int, share: float) -> set[int]:
    """What the two stages select: some by the first number, of the others some by the second."""
    by_first = sorted(range(len(first)), key=lambda token: -first[token])
    kept = set(by_first[: int(capacity * share)])
    others = [token for token in range(len(first)) if token not in kept]
    others.sort(key=lambda token: -second[token])
    return kept | set(others[: capacity - len(kept)])


@settings(deadline=None, max_examples=150)
@given(
    numbers=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40),
    share=st.sampled_from([0.0, 0.125, 0.3, 0.5, 0.75, 0.875, 1.0]),
    empty=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_the_best_of_the_order_are_what_two_stages_select_at_every_capacity(
    numbers: list[tuple[int, int]], share: float, empty: int, seed: int
) -> None:
    first, second = map(list, zip(*numbers, strict=True))
    places = len(numbers) + empty
    held = torch.randperm(places, generator=torch.Generator().manual_seed(seed))[: len(numbers)]
    held = held.sort().values
    junk = torch.full((2, places), 99.0)
    junk[:, held] = torch.tensor([first, second]).float()
    valid = torch.zeros(places, dtype=torch.bool)
    valid[held] = True
    scores = two_stage_score(junk[:1, None], junk[1:, None], valid.view(1, 1, -1), share)[0, 0]
    order = scores[held].argsort(descending=True).tolist()
    assert scores[held].tolist() == [-1 - order.index(token) for token in range(len(numbers))]
    for capacity in range(1, len(numbers) + 1):
        assert set(order[:capacity]) == selected(first, second, capacity, share)


def test_heads_and_sequences_are_ordered_each_by_itself() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 2, 33, generator=draw)
    valid = torch.rand(3, 2, 33, generator=draw) < 0.8
    together = two_stage_score(first, second, valid, 0.5)
    for row in range(3):
        for head in range(2):
            one = (slice(row, row + 1), slice(head, head + 1))
            alone = two_stage_score(first[one], second[one], valid[one], 0.5)
            assert torch.equal(alone[valid[one]], together[one][valid[one]])


@pytest.mark.parametrize(("share", "leading"), [(1.0, 0), (0.0, 1)])
def test_a_stage_that_has_it_all_gives_its_own_order(share: float, leading: int) -> None:
    numbers = torch.randn(2, 1, 1, 50, generator=torch.Generator().manual_seed(1))
    valid = torch.ones(1, 1, 50, dtype=torch.bool)
    scores = two_stage_score(numbers[0], numbers[1], valid, share)
    assert torch.equal(scores.argsort(), numbers[leading].argsort())
