"""The slices of a ragged prefix that one program each works on.

Heads of unequal length would leave most of a GPU waiting for the longest one. Cut into slices of
one size they make a flat list of nearly equal items.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class WorkList(NamedTuple):
    """Items of at most `split_tokens` rows, those of one segment next to each other.

    Valid as long as the offsets do not change, that is between two compactions of the prefix.

    Args:
        pair: Segment of each item, int32 [items].
        start: First row of each item, int32 [items].
        end: Row after the last one of each item, int32 [items].
        first: Items of segment `p` are `first[p]:first[p + 1]`, int32 [pairs + 1].
        split_tokens: Most rows of an item.
    """

    pair: Tensor
    start: Tensor
    end: Tensor
    first: Tensor
    split_tokens: int


def build_work_list(bounds: list[int], split_tokens: int, device: torch.device) -> WorkList:
    """Cut every segment into slices.

    Args:
        bounds: Borders of the segments, [pairs + 1].
        split_tokens: Most rows of an item.
        device: Where the list is needed.
    """
    pair, start, end, first = [], [], [], [0]
    for p, (segment_start, segment_end) in enumerate(pairwise(bounds)):
        for row in range(segment_start, segment_end, split_tokens):
            pair.append(p)
            start.append(row)
            end.append(min(row + split_tokens, segment_end))
        first.append(len(pair))
    pairs, starts, ends, firsts = (
        torch.tensor(x, dtype=torch.int32, device=device) for x in (pair, start, end, first)
    )
    return WorkList(pairs, starts, ends, firsts, split_tokens)
