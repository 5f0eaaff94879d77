"""Which tokens stay: against a slow and obvious selection, and for every size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.runtime.eviction import keep_order, longest_tail, select, tail_slots


@st.composite
def scored(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with many ties, and which places are valid."""
    tokens = draw(st.integers(1, 40))
    numbers = st.lists(st.integers(-3, 3), min_size=tokens, max_size=tokens)
    flags = st.lists(st.booleans(), min_size=tokens, max_size=tokens)
    scores = torch.tensor([[draw(numbers), draw(numbers)]], dtype=torch.float32)
    return scores, torch.tensor([[draw(flags), draw(flags)]])


def slow_selection(scores, valid, capacity, sinks, recent) -> set[int]:
    """One cache, written down as the docstring says it."""
    places = [int(i) for i in valid.nonzero().flatten()]
    first = places[:sinks]
    last = [p for p in reversed(places[-recent:] if recent else []) if p not in first]
    others = [p for p in places if p not in first and p not in last]
    by_score = sorted(others, key=lambda p: (-float(scores[p]), p))
    return set([*first, *last, *by_score][:capacity])


def float64_worth(scores, valid, sinks, recent):
    """One float64 per token that sorts them by the rule; needs scores that are finite."""
    rank = valid.cumsum(-1).double()
    from_end = rank[..., -1:] - rank
    above = float(torch.finfo(torch.float32).max) * 2
    worth = torch.where(from_end < recent, above * (1 + recent - from_end), scores.double())
    worth = torch.where(rank <= sinks, above * (2 + recent + sinks - rank), worth)
    return worth.masked_fill(~valid, -torch.inf)


FINITE = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 0.1]


@st.composite
def scored_by_any_float(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Finite scores of every size with ties, and which places are valid."""
    shape = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 30))
    count = shape[0] * shape[1] * shape[2]
    numbers = st.sampled_from(FINITE) | st.floats(allow_nan=False, allow_infinity=False, width=32)
    scores = torch.tensor(draw(st.lists(numbers, min_size=count, max_size=count))).view(shape)
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    return scores, torch.tensor(draw(flags)).view(shape)


@settings(deadline=None)
@given(scored_by_any_float(), st.integers(0, 40), st.integers(0, 40), st.integers(0, 33))
def test_whole_numbers_sort_tokens_as_float64_does(given_scores, sinks, recent, capacity):
    scores, valid = given_scores
    protected = {"sinks": sinks, "recent": recent}
    worth = float64_worth(scores, valid, sinks, recent)
    order = worth.argsort(dim=-1, descending=True, stable=True)
    assert torch.equal(keep_order(scores, valid, **protected), order)
    best = torch.zeros_like(valid).scatter_(-1, order[..., :capacity], True)
    keep = select(scores, valid, torch.tensor([[capacity]]), **protected)
    assert torch.equal(keep, best & valid)


@settings(deadline=None)
@given(scored(), st.integers(0, 45), st.integers(0, 5), st.integers(0, 9))
def test_select_keeps_sinks_then_recent_then_the_best(given_scores, capacity, sinks, recent):
    scores, valid = given_scores
    keep = select(scores, valid, torch.tensor([capacity, 3]), sinks=sinks, recent=recent)
    for head, room in enumerate((capacity, 3)):
        expected = slow_selection(scores[0, head], valid[0, head], room, sinks, recent)
        assert set(keep[0, head].nonzero().flatten().tolist()) == expected


@settings(deadline=None)
@given(scored(), scored(), st.lists(st.integers(0, 45), min_size=4, max_size=4))
def test_every_row_has_capacities_of_its_own(one, other, numbers):
    tokens = min(one[0].shape[-1], other[0].shape[-1])
    pairs = zip(one, other, strict=True)
    scores, valid = (torch.cat([a[..., :tokens], b[..., :tokens]]) for a, b in pairs)
    capacity = torch.tensor(numbers).view(2, 2)
    together = select(scores, valid, capacity, sinks=2, recent=3)
    for row in range(2):
        only = slice(row, row + 1)
        alone = select(scores[only], valid[only], capacity[row], sinks=2, recent=3)
        assert torch.equal(together[only], alone)


@settings(deadline=None)
@given(scored(), st.integers(0, 40))
def test_what_stays_at_a_capacity_stays_at_every_larger_one(given_scores, capacity):
    scores, valid = given_scores
    small = select(scores, valid, torch.full((2,), capacity))
    large = select(scores, valid, torch.full((2,), capacity + 1))
    assert bool((small <= large).all())


@settings(deadline=None)
@given(scored())
def test_the_order_lists_every_place_once_and_invalid_ones_last(given_scores):
    scores, valid = given_scores
    order = keep_order(scores, valid)
    assert torch.equal(order.sort(-1).values[0, 0], torch.arange(scores.shape[-1]))
    in_order = valid.gather(-1, order)
    assert bool((in_order.long().diff(dim=-1) <= 0).all())


def test_scores_of_minus_infinity_lose_to_every_other_valid_token():
    scores = torch.tensor([[[0.0, float("-inf"), -3e38, 1.0]]])
    valid = torch.tensor([[[True, True, True, True]]])
    keep = select(scores, valid, torch.tensor([3]), sinks=0, recent=0)
    assert keep.tolist() == [[[True, False, True, True]]]


def test_invalid_tokens_lose_to_scores_of_minus_infinity():
    scores = torch.full((1, 1, 4), float("-inf"))
    valid = torch.tensor([[[False, True, False, True]]])
    assert keep_order(scores, valid, sinks=0, recent=0).tolist() == [[[1, 3, 0, 2]]]
    keep = select(scores, valid, torch.tensor([2]), sinks=0, recent=0)
    assert torch.equal(keep, valid)


def test_protected_tokens_win_against_scores_of_infinity():
    scores = torch.tensor([[[0.0, float("inf"), float("inf"), 0.0, -1.0]]])
    everywhere = torch.ones_like(scores, dtype=torch.bool)
    assert keep_order(scores, everywhere, sinks=1, recent=2).tolist() == [[[0, 4, 3, 1, 2]]]
    keep = select(scores, everywhere, torch.tensor([3]), sinks=1, recent=2)
    assert keep.tolist() == [[[True, False, False, True, True]]]


@pytest.mark.parametrize(("sinks", "recent"), [(2**40, 0), (0, 2**40), (2**31 - 1, 2**31 - 1)])
def test_more_tokens_may_be_protected_than_there_are(sinks, recent):
    scores, valid = torch.randn(1, 1, 6), torch.ones(1, 1, 6, dtype=torch.bool)
    order = range(6) if sinks else reversed(range(6))
    assert keep_order(scores, valid, sinks=sinks, recent=recent).tolist() == [[list(order)]]


def test_half_precision_scores_and_shared_rows_are_served():
    scores = torch.randn(1, 2, 9).half()
    valid = torch.ones(1, 1, 9, dtype=torch.bool).expand(1, 2, 9)
    assert torch.equal(keep_order(scores, valid), keep_order(scores.float(), valid))
    one = scores[:, :1].expand(1, 2, 9)
    keep = select(one, valid, torch.tensor([3]), sinks=0, recent=1)
    assert torch.equal(keep[:, 0], keep[:, 1])
    assert keep.sum(-1).tolist() == [[3, 3]]


@pytest.mark.parametrize(
    ("capacities", "held", "new", "expected"),
    [
        ([64, 900], [64, 900], 1, 32),  # all full: the longest tail
        ([64, 64], [64, 64], 1, 16),  # a quarter of what is held
        ([900, 900], [5, 5], 1, 8),  # short prompts: no slots that nobody needs
        ([64, 64], [60, 64], 1, 4),  # one has 4 places left: it must lose nothing
        ([64, 64], [60, 64], 5, 16),  # too few for 5 tokens: it evicts like the others
        ([12, 400], [12, 20], 1, 6),  # the smallest cache keeps more than its tail
        ([1, 9], [1, 9], 1, 1),
    ],
)
def test_the_tail_takes_no_room_from_a_cache_that_has_some_left(capacities, held, new, expected):
    assert tail_slots(torch.tensor(capacities), torch.tensor(held), new) == expected


@pytest.mark.parametrize(
    ("capacities", "held", "new", "expected"),
    [
        ([[64, 900], [900, 64]], [[64, 900], [64, 64]], 1, 32),  # a row with room loses nothing
        ([[64, 64]], [[64, 64], [60, 64]], 1, 4),  # rows share capacities, one has 4 places left
        ([[64, 64], [64, 12]], [[64, 64], [64, 12]], 1, 6),  # the smallest cache of all rows
    ],
)
def test_a_tail_suits_every_row(capacities, held, new, expected):
    assert tail_slots(torch.tensor(capacities), torch.tensor(held), new) == expected


def test_no_tail_is_longer_than_the_smallest_cache():
    assert all(longest_tail(torch.tensor([c, 999])) <= c for c in range(1, 99))
