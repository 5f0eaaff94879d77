"""The work list covers every row once, in items that are small enough."""

from __future__ import annotations

from itertools import accumulate

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.kernels.ragged_attention.work_list import build_work_list


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.integers(1, 50))
def test_items_cover_every_row_of_their_own_segment_once(sizes, split_tokens):
    offsets = [0, *accumulate(sizes)]
    work = build_work_list(offsets, split_tokens, torch.device("cpu"))
    covered = []
    for pair in range(len(sizes)):
        for item in range(work.first[pair], work.first[pair + 1]):
            assert work.pair[item] == pair
            assert 0 < work.end[item] - work.start[item] <= split_tokens
            covered += [(pair, row) for row in range(work.start[item], work.end[item])]
    expected = [(p, r) for p in range(len(sizes)) for r in range(offsets[p], offsets[p + 1])]
    assert covered == expected
    assert work.first[-1] == len(work.pair)
