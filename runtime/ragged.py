"""Storage for caches of unequal length: a flat prefix of segments, and a dense tail.

The prefix holds the kept tokens of every (sequence, KV head), a segment each. Tokens decoded since
the last eviction wait in the tail, which is rectangular because every head gets every new token.
Both lie in the layer's region of an arena, the tail right behind the prefix.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kvbudget.kernels import Prefix, gather_kept, move_rows

from .arena import Region
from .eviction import longest_tail
from .padded_tokens import PaddedTokens, rows_of, state_of
from .segments import Segments, rooms_for


class _Held(NamedTuple):
    """Tokens of the prefix, segment by segment, oldest first, and of the tail."""

    lengths: Sequence[int]  # [segments]
    rows: Tensor  # in the region, [tokens]
    state: Tensor  # [tokens, channels]
    earlier_state: Tensor | None  # the same
    tail_rows: Tensor  # in the region, [segments, used slots]


class RaggedStore:
    """Keys and values of one layer, in a region of as many rows as it may keep.

    An eviction puts newer tokens where older ones went, and moves nothing else. Only where the
    segments need other rooms, or are others, is everything laid out anew.

    Attributes:
        region: Where everything lies.
        segments: Which rows hold the prefix, and in which order.
        state: What the heuristic remembers of the token at each place of `segments`,
            [rows, channels], float32; the tokens of the tail have none yet.
        earlier_state: The state before the newest block was shown, as long as that block may be
            taken back; None otherwise.
        tail_keys: [batch, kv_heads, tail_capacity, head_dim].
        tail_values: [batch, kv_heads, tail_capacity, value_dim].
        tail_tokens: Tail slots in use.
        tail_first: Column of the tail's first slot.

    Args:
        region: Holds the prefix already.
        batch: Sequences.
        segments: One for every sequence and KV head.
        state: Of the prefix.
        first_column: Column of the next token.
        tail: Free slots behind the prefix.
    """

    def __init__(
        self,
        region: Region,
        batch: int,
        segments: Segments,
        state: Tensor,
        *,
        first_column: int,
        tail: int,
    ) -> None:
        self.region, self.segments, self.state = region, segments, state
        self.batch, self.kv_heads = batch, len(segments.lengths) // batch
        self.earlier_state: Tensor | None = None
        self.tail_tokens, self.tail_first = 0, first_column
        self._prefix: Prefix | None = None
        self._bind(tail)

    @classmethod
    def of(
        cls,
        kept: PaddedTokens,
        keep: Tensor,
        region: Region,
        capacities: Tensor,
        *,
        first_column: int,
        tail: int,
    ) -> "RaggedStore":
        """Store the tokens of `kept` where `keep` is set, with `tail` free slots behind them.

        Args:
            kept: Tokens, of which none lies in the region.
            keep: What to store, [batch, kv_heads, tokens], bool.
            region: Where to.
            capacities: Most tokens of each cache from now on, [batch or 1, kv_heads].
            first_column: Column of the next token.
            tail: Free slots.
        """
        lengths: list[int] = keep.sum(-1).flatten().tolist()
        free = len(region.keys) - len(lengths) * tail
        rooms = _rooms(lengths, capacities, free)
        segments = Segments(rooms, lengths, len(region.keys), keep.device)
        # straight into the region: no copy of all that is kept beside it
        gather_kept(keep, kept.keys, kept.values, region.keys, region.values, segments.offsets[:-1])
        segments.positions[segments.places()] = kept.positions[keep].int()
        state = segments.by_place(kept.state[keep])
        return cls(region, len(keep), segments, state, first_column=first_column, tail=tail)

    @property
    def keys(self) -> Tensor:
        """Every row's keys, [rows, head_dim]; `segments` tells which hold the prefix."""
        return self.region.keys

    @property
    def values(self) -> Tensor:
        """Every row's values, [rows, value_dim]."""
        return self.region.values

    @property
    def prefix(self) -> Prefix:
        """The prefix as attention knows it; the same one as long as it lies in the same region."""
        if self._prefix is None:
            self._prefix = Prefix(*self._known())
        return self._prefix

    @property
    def lengths(self) -> Tensor:
        """Rows of each segment, [batch, kv_heads], int64, on the CPU."""
        return torch.tensor(self.segments.lengths).view(self.batch, self.kv_heads)

    @property
    def held_rows(self) -> int:
        """Rows of the prefix, and slots of the tail in use."""
        return self.segments.total + self.batch * self.kv_heads * self.tail_tokens

    @property
    def free_tail(self) -> int:
        """Tail slots not yet in use."""
        return self.tail_keys.shape[2] - self.tail_tokens

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Put new tokens, [batch, kv_heads, new, dim], into the free slots of the tail."""
        first, new = self.tail_tokens, keys.shape[2]
        self.tail_keys.narrow(2, first, new).copy_(keys.detach())
        self.tail_values.narrow(2, first, new).copy_(values.detach())
        self.tail_tokens = first + new

    def padded(self, dense: bool = True) -> PaddedTokens:
        """All tokens held, in a rectangle: the prefix segments, oldest first, then the tail.

        Args:
            dense: Copy keys and values too; if not, zeros that take no memory stand for them.
        """
        places, valid, rows = self._spread()
        every = torch.ones_like(rows[:, places.shape[1] :], dtype=torch.bool)
        state = self.state.new_zeros(*rows.shape, self.state.shape[1])
        if self.state.shape[1]:
            held = self.state[places].masked_fill_(~valid[..., None], 0.0)
            state[:, : places.shape[1]] = held
        each = (
            *(rows_of(flat, rows, dense) for flat in (self.keys, self.values)),
            self.segments.columns_of(rows).long(),
            torch.cat([valid, every], 1),
            state,
        )
        return PaddedTokens(*(x.unflatten(0, (self.batch, self.kv_heads)) for x in each))

    def merge(self, keep: Tensor, state: Tensor, tail: int, capacities: Tensor) -> None:
        """Let the kept tokens of the tail join the prefix, and leave an empty tail behind it.

        Args:
            keep: What stays, in the places of `padded()`, [batch, kv_heads, tokens], bool.
            state: What the heuristic remembers, in the same places.
            tail: Slots of the new tail.
            capacities: Most tokens of each cache from now on, [batch or 1, kv_heads].
        """
        segments, kept = self.segments, keep.flatten(0, 1)
        lengths: list[int] = kept.sum(1).tolist()
        _, valid, rows = self._spread()
        behind, self.earlier_state = len(lengths) * tail, None
        if segments.have_room(lengths, behind):
            move_rows(self.keys, self.values, *segments.refill(kept, rows, valid, lengths))
            self._remember(state_of(keep, state, segments.total))
        else:
            rooms = _rooms(lengths, capacities, segments.rows - behind)
            told = state_of(keep, state, sum(lengths))
            held = _Held(lengths, rows.masked_select(kept), told, None, rows[:, :0])
            self._lay_out(held, rooms, tail)
        self._empty_tail(self.tail_first + self.tail_tokens, tail)

    def select_rows(self, rows: Tensor) -> None:
        """Keep these sequences, in this order, repeats allowed: beam search and batch cuts."""
        if torch.equal(rows, torch.arange(self.batch, device=rows.device)):
            return
        if rows.numel() == self.batch and self._rooms_are_alike():
            self._exchange(rows.tolist())
            return
        segments, chosen = self.segments, self._of_rows(rows.tolist())
        lengths = [segments.lengths[at] for at in chosen]
        free = segments.rows - sum(lengths)
        slots = min(self.tail_keys.shape[2], free // len(chosen))
        rooms = [segments.rooms[at] for at in chosen]
        if sum(rooms) + len(chosen) * slots > segments.rows:
            rooms = lengths
        self.batch = rows.numel()
        self._lay_out(self._held(chosen), rooms, slots)
        self._bind(slots)

    def crop(self, first_removed: int) -> None:
        """Forget every token at column `first_removed` and after it."""
        self.tail_tokens = min(self.tail_tokens, max(0, first_removed - self.tail_first))
        if first_removed >= self.tail_first:
            return
        _, valid, rows = self._spread()
        keep = valid & (self.segments.columns_of(rows) < first_removed)
        lengths: list[int] = keep.sum(1).tolist()
        # the newest stand last, so that the places of the others, and their states, stay
        move_rows(self.keys, self.values, *self.segments.refill(keep, rows, valid, lengths))
        self._empty_tail(first_removed, self.tail_keys.shape[2])

    def go_back(self) -> None:
        """Return to the state before the newest block was shown."""
        if self.earlier_state is not None:
            self.state.copy_(self.earlier_state)
            self.earlier_state = None

    def note_earlier_state(self, state: Tensor) -> None:
        """Take note of the state before a block that may be taken back was shown.

        Args:
            state: Of every token of the prefix, as `kept_state` tells it.
        """
        self.earlier_state = self.segments.by_place(state)

    def move(self, region: Region) -> None:
        """Go to the start of another region, which may overlap; free slots are given up."""
        held = self._held(range(len(self.segments.lengths)))
        self._lay_out(held, held.lengths, self.tail_tokens, region)
        self.rebind(region)

    def rebind(self, region: Region) -> None:
        """Stay in a region to whose start somebody else copied all rows held."""
        self.region = region
        self._bind(self.tail_tokens)

    def kept_columns(self) -> Tensor:
        """Column of every token of the prefix, segment by segment, rising, int32 [tokens]."""
        return self.segments.columns_of(self.segments.held_rows())

    def kept_state(self) -> Tensor:
        """What the heuristic remembers of each of them, [tokens, channels]."""
        return self.state[self.segments.places()]

    def kept_earlier_state(self) -> Tensor | None:
        """What it was before the newest block, as long as that may be taken back."""
        earlier = self.earlier_state
        return None if earlier is None else earlier[self.segments.places()]

    def kept_positions(self) -> list[list[Tensor]]:
        """Sorted columns held, per sequence and KV head: the prefix, then the tail."""
        tail = torch.arange(self.tail_first, self.tail_first + self.tail_tokens)
        columns = self.kept_columns().long().cpu().split(self.segments.lengths)
        segments = [torch.cat([held, tail]) for held in columns]
        return [
            segments[row * self.kv_heads : (row + 1) * self.kv_heads] for row in range(self.batch)
        ]

    def overhead_nbytes(self) -> int:
        """Bytes of everything kept beside K and V: rows, columns, the heuristic's state."""
        earlier = () if self.earlier_state is None else (self.earlier_state,)
        derived = 0 if self._prefix is None else self._prefix.nbytes()
        return self.segments.nbytes() + storage_bytes(self.state, *earlier) + derived

    def _empty_tail(self, first_column: int, slots: int) -> None:
        self.tail_tokens, self.tail_first = 0, first_column
        self._bind(slots)

    def _bind(self, slots: int) -> None:
        """Look at the region: a tail of so many slots behind the prefix."""
        first, shape = self.segments.bounds[-1], (self.batch, self.kv_heads, slots)
        tail = slice(first, first + self.batch * self.kv_heads * slots)
        self.tail_keys = self.keys[tail].view(*shape, self.keys.shape[1])
        self.tail_values = self.values[tail].view(*shape, self.values.shape[1])
        columns = torch.arange(self.tail_first, self.tail_first + slots)
        positions = self.segments.positions
        positions[tail].view(shape).copy_(columns.to(positions).expand(shape))
        self._look_again()

    def _look_again(self) -> None:
        """Let attention know that the segments are others."""
        if self._prefix is not None and self._prefix.holds(*self._known()):
            self._prefix.renew()
        else:
            self._prefix = None

    def _known(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What attention is told of the prefix."""
        segments = self.segments
        return self.keys, self.values, segments.offsets, segments.positions, segments.ends

    def _spread(self) -> tuple[Tensor, Tensor, Tensor]:
        """Places of the prefix, which of them hold a token, and the rows of prefix and tail."""
        places, valid = self.segments.spread()
        rows = [self.segments.rows_at(places), self._tail_rows(self.tail_keys.shape[2]).int()]
        return places, valid, torch.cat(rows, 1)

    def _tail_rows(self, slots: int) -> Tensor:
        """Row of each slot in use, if there are so many slots, [segments, tail_tokens]."""
        first, count = self.segments.bounds[-1], len(self.segments.lengths)
        rows = torch.arange(first, first + count * slots, device=self.state.device)
        return rows.view(count, slots)[:, : self.tail_tokens]

    def _rooms_are_alike(self) -> bool:
        """Whether the rooms of one sequence serve any other."""
        rooms = self.segments.rooms
        return rooms == rooms[: self.kv_heads] * self.batch

    def _of_rows(self, rows: Sequence[int]) -> list[int]:
        """The segments of these sequences."""
        return [row * self.kv_heads + head for row in rows for head in range(self.kv_heads)]

    def _exchange(self, rows: Sequence[int]) -> None:
        """Go on with as many sequences as before; only those move that come to another place."""
        targets = [target for target, source in enumerate(rows) if target != source]
        sources = [rows[target] for target in targets]
        chosen = self._of_rows(sources), self._of_rows(targets)
        old, new = self.segments.exchange(*chosen)
        earlier = () if self.earlier_state is None else (self.earlier_state,)
        for flat in (self.keys, self.values, self.state, *earlier):
            flat.index_copy_(0, new, flat.index_select(0, old))
        for tail in (self.tail_keys, self.tail_values):
            used = tail.narrow(2, 0, self.tail_tokens)
            used[targets] = used[sources]
        self._look_again()

    def _held(self, chosen: Sequence[int]) -> _Held:
        """What these segments hold, in this order."""
        places, earlier = self.segments.places(chosen), self.earlier_state
        return _Held(
            [self.segments.lengths[at] for at in chosen],
            self.segments.rows_at(places),
            self.state[places],
            None if earlier is None else earlier[places],
            self._tail_rows(self.tail_keys.shape[2])[list(chosen)],
        )

    def _lay_out(
        self, held: _Held, rooms: Sequence[int], slots: int, region: Region | None = None
    ) -> None:
        """Move all this into other rooms, the tail with so many slots; maybe to another region."""
        positions, source = self.segments.columns_of(held.rows), self.region
        if region is None:
            self.segments.lay_out(rooms, held.lengths)
        else:
            self.region = region
            self.segments = Segments(rooms, held.lengths, len(region.keys), positions.device)
        places = self.segments.places()
        self.segments.positions.scatter_(0, places, positions)
        tail = self._tail_rows(slots)[:, : held.tail_rows.shape[1]].flatten()
        is_packed = self.segments.bounds[-1] == len(places)
        for old, new in ((source.keys, self.keys), (source.values, self.values)):
            _move(old, held, new, None if is_packed else places, tail)
        self._remember(held.state)
        earlier = held.earlier_state
        self.earlier_state = None if earlier is None else self.segments.by_place(earlier)

    def _remember(self, state: Tensor) -> None:
        """Put the state of every token, [tokens, channels], to its place, in place if it can be."""
        if self.state.shape != (self.segments.rows, state.shape[1]):
            self.state = self.segments.by_place(state)
        elif state.shape[1]:
            self.state.index_copy_(0, self.segments.places(), state)


def _move(old: Tensor, held: _Held, new: Tensor, places: Tensor | None, tail: Tensor) -> None:
    """Copy rows to where they go, which may be where others of them are; None is the start."""
    prefix = old.index_select(0, held.rows)
    newest = old.index_select(0, held.tail_rows.flatten())
    if places is None:
        new[: len(prefix)] = prefix
    else:
        new.index_copy_(0, places, prefix)
    new.index_copy_(0, tail, newest)


def _rooms(lengths: Sequence[int], capacities: Tensor, free: int) -> list[int]:
    """Rows for each segment, for capacities [batch or 1, kv_heads]."""
    rows = len(lengths) // capacities.shape[1]
    each: list[int] = capacities.expand(rows, -1).flatten().tolist()
    return rooms_for(lengths, each, longest_tail(capacities), free)


def storage_bytes(*tensors: Tensor) -> int:
    """Bytes of the storages that these tensors are views of, each counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    sizes = {(storage.device, storage.data_ptr()): storage.nbytes() for storage in storages}
    return sum(sizes.values())
