"""A ragged prefix, looked at once: what every call over it needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby, pairwise
from typing import NamedTuple

from torch import Tensor

from .work_list import WorkList, build_work_list


class Run(NamedTuple):
    """Neighbouring segments of one length; a single segment lacks the first axis.

    Args:
        segments: Which segments these are.
        rows: Which rows of the prefix.
        keys: [segments, head_dim, tokens], a view.
        values: [segments, tokens, value_dim], a view.
        positions: [segments, tokens], a view.
    """

    segments: int | slice
    rows: slice
    keys: Tensor
    values: Tensor
    positions: Tensor


class Prefix:
    """The kept tokens of all segments back to back, and what follows from where they lie.

    To be made anew whenever one of the tensors changes. Reads `offsets` and the extent of
    `positions` on the host, which on CUDA waits for the device.

    Args:
        keys: [rows, head_dim].
        values: [rows, value_dim].
        offsets: Segment borders, int64 [segments + 1], never falling, from 0 to at most `rows`.
        positions: Column of each row in its sequence, int32 [rows].

    Attributes:
        bounds: `offsets` on the host.
        checked_for: Type, device, segments and head size of queries that it was found to suit.

    Raises:
        ValueError: If `offsets` do not start at 0, fall, or end beyond the rows.
    """

    def __init__(self, keys: Tensor, values: Tensor, offsets: Tensor, positions: Tensor) -> None:
        self.keys, self.values, self.offsets, self.positions = (keys, values, offsets, positions)
        self.bounds: list[int] = offsets.tolist()
        if (
            self.bounds[0] != 0
            or self.bounds[-1] > len(keys)
            or any(a > b for a, b in pairwise(self.bounds))
        ):
            raise ValueError(
                f"`offsets` must rise from 0 to at most the {len(keys)} rows of `keys`, but got "
                f"{self.bounds}."
            )
        self.checked_for: tuple[object, ...] = ()
        self._work: WorkList | None = None

    def holds(self, keys: Tensor, values: Tensor, offsets: Tensor, positions: Tensor) -> bool:
        """Whether it was made of these very tensors."""
        return (
            self.keys is keys
            and self.values is values
            and self.offsets is offsets
            and self.positions is positions
        )

    def nbytes(self) -> int:
        """Bytes of what was derived from the tensors; they themselves do not count."""
        derived = () if self._work is None else self._work[:4]
        return sum(tensor.untyped_storage().nbytes() for tensor in derived)

    @cached_property
    def span(self) -> tuple[int, int]:
        """Lowest and highest position held; a span that nothing can hide if there is none."""
        if not self.bounds[-1]:
            return 2**62, -1
        low, high = self.positions[: self.bounds[-1]].aminmax()
        return int(low), int(high)

    @cached_property
    def runs(self) -> list[Run]:
        """The segments, those of equal length next to each other taken together."""
        runs, first = [], 0
        for tokens, same in groupby(b - a for a, b in pairwise(self.bounds)):
            count = len(list(same))
            runs.append(self._run(first, count, tokens))
            first += count
        return runs

    def _run(self, first: int, count: int, tokens: int) -> Run:
        rows = slice(self.bounds[first], self.bounds[first + count])
        parts = (self.keys[rows], self.values[rows], self.positions[rows])
        if count == 1:
            return Run(first, rows, parts[0].mT, *parts[1:])
        keys, values, positions = (x.unflatten(0, (count, tokens)) for x in parts)
        return Run(slice(first, first + count), rows, keys.mT, values, positions)

    @cached_property
    def largest(self) -> tuple[int, int]:
        """Segments of the run with most of them, and rows of the run with most rows."""
        counts = [run.positions.shape[:-1].numel() for run in self.runs]
        return max(counts), max(run.positions.numel() for run in self.runs)

    def cut(self, by_segment: Tensor) -> Sequence[Tensor]:
        """The part of each run, of a tensor whose first axis are the segments."""
        if len(self.runs) == len(by_segment):
            return by_segment.unbind(0)
        return [by_segment[run.segments] for run in self.runs]

    def work_list(self, split_tokens: int) -> WorkList:
        """Slices for programs on a GPU; the newest list is kept."""
        if self._work is None or self._work.split_tokens != split_tokens:
            self._work = build_work_list(self.bounds, split_tokens, self.offsets.device)
        return self._work
