"""Which rows hold the tokens of a segment, and in which order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.runtime.segments import Segments, rooms_for

CPU = torch.device("cpu")


def test_tokens_lie_in_the_first_rows_of_their_rooms():
    segments = Segments([4, 0, 3, 5], [2, 0, 3, 1], 14, CPU)
    assert segments.offsets.tolist() == segments.bounds == [0, 4, 4, 7, 12]
    assert segments.ends.tolist() == [2, 4, 7, 8]
    assert (segments.rows, segments.total, segments.rooms) == (14, 6, [4, 0, 3, 5])
    assert segments.places().tolist() == segments.held_rows().tolist() == [0, 1, 4, 5, 6, 7]
    assert segments.places([3, 0]).tolist() == [7, 0, 1]
    assert segments.rows_in_rooms().tolist() == [0, 1, 0, 1, 2, 0]


def test_places_are_spread_over_a_rectangle():
    places, valid = Segments([4, 0, 3, 5], [2, 0, 3, 1], 14, CPU).spread()
    assert valid.tolist() == [
        [True, True, False],
        [False, False, False],
        [True, True, True],
        [True, False, False],
    ]
    assert places[valid].tolist() == [0, 1, 4, 5, 6, 7]
    assert set(places[~valid].tolist()) <= {0, 1, 4, 5, 6, 7}
    nothing, none = Segments([3, 2], [0, 0], 5, CPU).spread()
    assert nothing.shape == none.shape == (2, 0)


@pytest.mark.parametrize(
    ("lengths", "behind", "fits"),
    [
        ([4, 0, 3, 5], 2, True),
        ([0, 0, 0, 0], 0, True),
        ([4, 0, 3, 5], 3, False),
        ([5, 0, 3, 4], 0, False),
        ([4, 1, 3, 4], 0, False),
    ],
)
def test_there_is_room_for_what_fits(lengths, behind, fits):
    segments = Segments([4, 0, 3, 5], [2, 0, 3, 1], 14, CPU)
    assert segments.have_room(lengths, behind) is fits


def test_other_rooms_leave_the_tensors_where_they_are():
    segments = Segments([4, 2], [4, 1], 8, CPU)
    each = [segments.offsets, segments.ends, segments.positions, segments.order]
    segments.lay_out([3, 5], [2, 5])
    now = [segments.offsets, segments.ends, segments.positions, segments.order]
    assert all(one is other for one, other in zip(each, now, strict=True))
    assert (segments.offsets.tolist(), segments.ends.tolist()) == ([0, 3, 8], [2, 8])
    segments.lay_out([3, 3, 2], [1, 1, 1])
    assert segments.offsets.tolist() == [0, 3, 6, 8]
    with pytest.raises(AssertionError, match="more than there is memory for"):
        segments.lay_out([3, 6], [0, 0])


def test_what_was_told_of_rows_puts_them_back():
    segments = Segments([4, 2], [4, 1], 8, CPU)
    segments.follow(torch.tensor([2, 0, 3, 1, 4]))
    assert segments.rows_in_rooms().tolist() == [2, 0, 3, 1, 0]
    other = Segments([4, 2], [4, 1], 8, CPU)
    other.follow_in_rooms(segments.rows_in_rooms())
    assert torch.equal(other.held_rows(), segments.held_rows())


def test_what_belongs_to_tokens_goes_to_their_places():
    segments = Segments([3, 2], [2, 1], 6, CPU)
    segments.follow(torch.tensor([1, 0, 3]))
    by_place = segments.by_place(torch.tensor([[7.0], [8.0], [9.0]]))
    assert by_place.shape == (6, 1)
    assert by_place[[0, 1, 3], 0].tolist() == [7.0, 8.0, 9.0]


def test_newer_tokens_take_the_rows_of_those_that_go():
    """Two segments of rooms 5 and 3; a tail of two slots lies behind them, in rows 8 to 11."""
    segments = Segments([5, 3], [4, 3], 12, CPU)
    segments.follow(torch.tensor([3, 1, 0, 2, 5, 6, 7]))
    segments.positions[:] = torch.tensor([20, 10, 30, 0, 99, 4, 5, 6, 40, 41, 40, 41])
    places, valid = segments.spread()
    rows = torch.cat([segments.order[places], torch.tensor([[8, 9], [10, 11]]).int()], 1)
    # the first keeps three of its own and takes both, the second keeps its last and takes one
    keep = torch.tensor([[1, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 1]]).bool()
    sources, targets = segments.refill(keep, rows, valid, [5, 2])
    assert list(zip(sources.tolist(), targets.tolist(), strict=True)) == [
        (8, 1),
        (9, 4),
        (7, 5),
        (11, 6),
    ]
    assert segments.held_rows().tolist() == [3, 0, 2, 1, 4, 5, 6]
    assert segments.positions[segments.held_rows()].tolist() == [0, 20, 30, 40, 41, 6, 41]
    assert (segments.lengths, segments.ends.tolist()) == ([5, 2], [5, 7])


sizes = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=6)


@given(sizes, st.integers(0, 12), st.integers(0, 400))
def test_rooms_hold_what_is_there_and_fit_the_memory(each, longest_tail, spare):
    lengths = [length for length, _ in each]
    capacities = [length + more for length, more in each]
    free = sum(lengths) + spare
    rooms = rooms_for(lengths, capacities, longest_tail, free)
    assert sum(rooms) <= free
    assert all(room >= length for room, length in zip(rooms, lengths, strict=True))
    if sum(capacities) <= free:
        wanted = zip(lengths, capacities, strict=True)
        assert rooms == [max(length, most - longest_tail) for length, most in wanted]
