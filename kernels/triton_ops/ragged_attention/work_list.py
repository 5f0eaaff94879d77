"""The slices of a ragged prefix that one program each works on.

Heads of unequal length would leave most of a GPU waiting for the longest one. Cut into slices of
one size they make a flat list of nearly equal items.
"""

from __future__ import annotations

import torch
from torch import Tensor


class WorkList:
    """Items of at most `split_tokens` rows, those of one segment next to each other.

    It has room for as many items as the storage can ever need, and their number lies on the
    device: filled anew after an eviction, its tensors stay where they are and a kernel's grid stays
    as it is, so that a captured CUDA graph remains right. Programs beyond the number have nothing
    to do.

    Args:
        rows: Rows of the storage that the segments lie in.
        segments: Number of segments, above 0.
        split_tokens: Most rows of an item.
        device: Where the list is needed.

    Attributes:
        pair: Segment of each item, int32 [capacity].
        start: First row of each item, int32 [capacity].
        end: Row after the last one of each item, int32 [capacity]. Beyond the number of items it
            is not above `start`: they are empty.
        first: Items of segment `p` are `first[p]:first[p + 1]`, int32 [segments + 1]; the last
            is the number of items.
        capacity: Most items that it can hold.
        split_tokens: Most rows of an item.
    """

    def __init__(self, rows: int, segments: int, split_tokens: int, device: torch.device) -> None:
        # every segment may end with an item of a single row
        capacity = (rows + segments * (split_tokens - 1)) // split_tokens
        sizes = (capacity, capacity, capacity, segments + 1)
        # made by the first call, often in inference mode, but refilled outside of it too
        with torch.inference_mode(False):
            self._store = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
            self.pair, self.start, self.end, self.first = self._store.split(sizes)
        self.capacity, self.split_tokens = capacity, split_tokens

    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self._store.untyped_storage().nbytes()

    def fill(self, offsets: Tensor, ends: Tensor | None = None) -> None:
        """Cut every segment into slices, in place; nothing is read on the host.

        Args:
            offsets: Borders of the segments, int64 [segments + 1].
            ends: Row behind the last one of each segment, int64 [segments]; None is the next
                segment's first.
        """
        starts = offsets[:-1]
        ends = offsets[1:] if ends is None else ends
        counts = (ends - starts + (self.split_tokens - 1)) // self.split_tokens
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        items = torch.arange(self.capacity, device=offsets.device)
        # items beyond the number start behind the last row of the last segment
        pair = torch.searchsorted(first[1:], items, right=True).clamp_(max=len(starts) - 1)
        start = starts[pair] + (items - first[pair]) * self.split_tokens
        end = torch.minimum(start + self.split_tokens, ends[pair])
        self._store.copy_(torch.cat([pair, start, end, first]))
