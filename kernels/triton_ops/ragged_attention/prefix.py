"""A ragged prefix, looked at once: what every call over it needs to know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .work_list import WorkList


class Place(NamedTuple):
    """Where neighbouring segments of one length lie, in rooms of one size.

    Args:
        segments: Which segments these are; a number if it is one.
        rows: Which rows of the prefix, those between the segments among them.
        tokens: Rows of each segment.
        room: Rows from the first of one segment to the first of the next.
    """

    segments: int | slice
    rows: slice
    tokens: int
    room: int

    def of(self, by_row: Tensor) -> Tensor:
        """Their part of a tensor by row, a view [segments, tokens, ...] of it."""
        part = by_row[self.rows]
        if not isinstance(self.segments, slice):
            return part
        count = self.segments.stop - self.segments.start
        by_segment: Tensor = part.unflatten(0, (count, self.room))
        return by_segment.narrow(1, 0, self.tokens)


class Run(NamedTuple):
    """Neighbouring segments of one length; a single segment lacks the first axis.

    Args:
        place: Where they lie.
        keys: [segments, head_dim, tokens], a view.
        values: [segments, tokens, value_dim], a view.
        positions: [segments, tokens], a view.
    """

    place: Place
    keys: Tensor
    values: Tensor
    positions: Tensor

    @property
    def segments(self) -> int | slice:
        """Which segments these are; a number if it is one."""
        return self.place.segments


class Prefix:
    """The kept tokens of all segments, and what follows from where they lie.

    Reads `offsets` and `ends` on the host, and the extent of `positions` where that is asked for,
    which on CUDA waits for the device. To be made anew when another tensor takes the place of one
    of them, and to be told by `renew` when one was changed in place.

    Args:
        keys: [rows, head_dim].
        values: [rows, value_dim].
        offsets: Segment borders, int64 [segments + 1], never falling, from 0 to at most `rows`.
        positions: Column of each row in its sequence, int32 [rows].
        ends: Row behind the last one of each segment, int64 [segments], none before
            `offsets[p]` or behind `offsets[p + 1]`; None if the segments lie back to back.

    Attributes:
        checked_for: Type, device, segments and head size of queries that it was found to suit.

    Raises:
        ValueError: If `offsets` do not start at 0, fall, or end beyond the rows, or `ends` lie
            outside of them.
    """

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        offsets: Tensor,
        positions: Tensor,
        ends: Tensor | None = None,
    ) -> None:
        self.keys, self.values, self.offsets, self.positions = (keys, values, offsets, positions)
        self.ends = ends
        self.checked_for: tuple[object, ...] = ()
        self._work: dict[int, WorkList] = {}
        self._check()

    @cached_property
    def bounds(self) -> list[int]:
        """`offsets` on the host."""
        bounds: list[int] = self.offsets.tolist()
        return bounds

    @cached_property
    def stops(self) -> list[int]:
        """Row behind the last one of each segment, on the host."""
        stops: list[int] = self.bounds[1:] if self.ends is None else self.ends.tolist()
        return stops

    def _check(self) -> None:
        if (
            self.bounds[0] != 0
            or self.bounds[-1] > len(self.keys)
            or any(a > b for a, b in pairwise(self.bounds))
        ):
            raise ValueError(
                f"`offsets` must rise from 0 to at most the {len(self.keys)} rows of `keys`, but "
                f"got {self.bounds}."
            )
        rooms = zip(self.bounds, self.stops, self.bounds[1:], strict=False)
        if any(not first <= stop <= end for first, stop, end in rooms):
            raise ValueError(
                f"`ends` must lie between the borders {self.bounds}, but got {self.stops}."
            )

    def renew(self) -> None:
        """Forget what was found in tensors whose contents were changed in place since.

        What follows on the device is found anew at once, what follows on the host when it is asked
        for; the contents are not checked again.
        """
        for name in ("bounds", "stops", "span", "runs", "largest"):
            vars(self).pop(name, None)
        for work in self._work.values():
            work.fill(self.offsets, self.ends)

    def holds(
        self,
        keys: Tensor,
        values: Tensor,
        offsets: Tensor,
        positions: Tensor,
        ends: Tensor | None = None,
    ) -> bool:
        """Whether it was made of these very tensors."""
        return (
            self.keys is keys
            and self.values is values
            and self.offsets is offsets
            and self.positions is positions
            and self.ends is ends
        )

    def nbytes(self) -> int:
        """Bytes of what was derived from the tensors; they themselves do not count."""
        return sum(work.nbytes() for work in self._work.values())

    @cached_property
    def span(self) -> tuple[int, int]:
        """Lowest and highest position held; a span that nothing can hide if there is none."""
        held = [run.positions.aminmax() for run in self.runs if run.positions.numel()]
        if not held:
            return 2**62, -1
        lows, highs = (torch.stack(extreme) for extreme in zip(*held, strict=True))
        return int(lows.min()), int(highs.max())

    @cached_property
    def runs(self) -> list[Run]:
        """The segments; neighbours of one length, in rooms of one size, are taken together."""
        runs, first = [], 0
        for (tokens, room), same in groupby(self._sizes()):
            count = len(list(same))
            runs.append(self._run(first, count, tokens, room))
            first += count
        return runs

    def _sizes(self) -> Iterator[tuple[int, int]]:
        """Rows of each segment, and rows to the start of the next."""
        for (first, end), stop in zip(pairwise(self.bounds), self.stops, strict=True):
            yield stop - first, end - first

    def _run(self, first: int, count: int, tokens: int, room: int) -> Run:
        start = self.bounds[first]
        rows = slice(start, start + (tokens if count == 1 else count * room))
        segments = first if count == 1 else slice(first, first + count)
        place = Place(segments, rows, tokens, room)
        keys, values, positions = map(place.of, (self.keys, self.values, self.positions))
        return Run(place, keys.mT, values, positions)

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
        """Slices for programs on a GPU; the list of each length is kept."""
        work = self._work.get(split_tokens)
        if work is None:
            segments = len(self.offsets) - 1
            work = WorkList(len(self.keys), segments, split_tokens, self.offsets.device)
            work.fill(self.offsets, self.ends)
            self._work[split_tokens] = work
        return work
