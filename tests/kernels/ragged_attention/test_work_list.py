"""The work list covers every row once, in items that are small enough, wherever segments lie."""

from __future__ import annotations

from itertools import accumulate

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.kernels.ragged_attention.work_list import WorkList

CPU = torch.device("cpu")


def covered(work: WorkList) -> list[tuple[int, int]]:
    """All (segment, row) that the items name, in their order."""
    rows = []
    for pair, (first, behind) in enumerate(zip(work.first[:-1], work.first[1:], strict=True)):
        for item in range(first, behind):
            assert work.pair[item] == pair
            assert 0 < work.end[item] - work.start[item] <= work.split_tokens
            rows += [(pair, row) for row in range(work.start[item], work.end[item])]
    return rows


@st.composite
def layouts(draw):
    """Used and free rows of some segments, as offsets and ends."""
    used = draw(st.lists(st.integers(0, 40), min_size=1, max_size=9))
    free = draw(st.lists(st.integers(0, 9), min_size=len(used), max_size=len(used)))
    offsets = [0, *accumulate(u + f for u, f in zip(used, free, strict=True))]
    ends = [start + u for start, u in zip(offsets[:-1], used, strict=True)]
    return offsets, ends


@given(layouts(), st.integers(1, 50), st.integers(0, 5))
def test_items_cover_every_used_row_of_their_own_segment_once(layout, split_tokens, spare):
    offsets, ends = layout
    work = WorkList(offsets[-1] + spare, len(ends), split_tokens, CPU)
    work.fill(torch.tensor(offsets), torch.tensor(ends))
    expected = [(p, r) for p, end in enumerate(ends) for r in range(offsets[p], end)]
    assert covered(work) == expected
    used = work.first[-1]
    assert used <= work.capacity
    assert (work.start[used:] >= work.end[used:]).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.integers(1, 50))
def test_without_ends_the_segments_lie_back_to_back(sizes, split_tokens):
    offsets = [0, *accumulate(sizes)]
    work = WorkList(offsets[-1], len(sizes), split_tokens, CPU)
    work.fill(torch.tensor(offsets))
    assert covered(work) == [(p, r) for p in range(len(sizes)) for r in range(*offsets[p : p + 2])]


def test_there_is_room_for_the_worst_division_and_for_no_more():
    work = WorkList(10, 3, 4, CPU)  # 1 + 1 + 8 rows are 1 + 1 + 2 items, 1 + 5 + 4 as many
    sizes = [(a, b, 10 - a - b) for a in range(11) for b in range(11 - a)]
    most = max(sum(-(-n // 4) for n in division) for division in sizes)
    assert work.capacity == most


@given(layouts(), layouts())
def test_filled_anew_it_stays_where_it_is_and_forgets_what_it_held(before, after):
    (first, first_ends), (offsets, ends) = before, after
    pairs = max(len(first_ends), len(ends))
    rows = max(first[-1], offsets[-1])
    work = WorkList(rows, pairs, 7, CPU)
    places = [x.data_ptr() for x in (work.pair, work.start, work.end, work.first)]
    for borders, behind in ((first, first_ends), (offsets, ends)):
        missing = pairs - len(behind)
        borders, behind = borders + borders[-1:] * missing, behind + borders[-1:] * missing
        work.fill(torch.tensor(borders), torch.tensor(behind))
    expected = [(p, r) for p, end in enumerate(ends) for r in range(offsets[p], end)]
    assert covered(work) == expected
    assert places == [x.data_ptr() for x in (work.pair, work.start, work.end, work.first)]


def test_made_in_inference_mode_it_is_filled_anew_outside_of_it():
    with torch.inference_mode():
        work = WorkList(10, 2, 4, CPU)
        work.fill(torch.tensor([0, 5, 10]))
    work.fill(torch.tensor([0, 4, 10]))
    assert covered(work) == [(int(row >= 4), row) for row in range(10)]
