"""Storage for caches of unequal length: a flat prefix with offsets, and a dense tail.

The prefix holds the kept tokens of every (sequence, KV head) back to back. Tokens decoded since
the last eviction wait in the tail, which is rectangular because every head gets every new token.
Both lie in the layer's region of an arena, the tail right behind the prefix.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from kvbudget.kernels import Prefix

from .arena import Region


@dataclass(frozen=True, slots=True)
class PaddedTokens:
    """What one layer holds, spread over a rectangle for scoring; a transient of one layer.

    Args:
        keys: [batch, kv_heads, tokens, head_dim].
        values: [batch, kv_heads, tokens, value_dim].
        positions: Column of each token in its sequence, [batch, kv_heads, tokens], int64.
        valid: Places that hold a token, [batch, kv_heads, tokens], bool.
        state: What the heuristic remembers of each, [batch, kv_heads, tokens, channels], float32.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    valid: Tensor
    state: Tensor

    def from_column(self, first: int | Tensor) -> Tensor:
        """Valid places whose token stands at column `first` or behind, as a mask.

        Args:
            first: One column, or one for each row, [batch, 1, 1].
        """
        return self.valid & (self.positions >= first)

    def join(self, other: "PaddedTokens") -> "PaddedTokens":
        """These tokens followed by newer ones."""
        return PaddedTokens(
            torch.cat([self.keys, other.keys], 2),
            torch.cat([self.values, other.values], 2),
            torch.cat([self.positions, other.positions], 2),
            torch.cat([self.valid, other.valid], 2),
            torch.cat([self.state, other.state], 2),
        )


def block_tokens(
    keys: Tensor, values: Tensor, first_column: int, valid: Tensor, channels: int
) -> PaddedTokens:
    """Freshly computed tokens in consecutive columns; `valid` is [batch, tokens]."""
    batch, kv_heads, tokens, _ = keys.shape
    columns = torch.arange(first_column, first_column + tokens, device=keys.device)
    shape = (batch, kv_heads, tokens)
    nothing = torch.zeros(*shape, channels, dtype=torch.float32, device=keys.device)
    seen = valid[:, None, :].expand(shape)
    return PaddedTokens(keys, values, columns.expand(shape), seen, nothing)


class RaggedStore:
    """Keys and values of one layer, exactly as many rows as tokens are kept.

    Attributes:
        keys: Prefix keys, [rows, head_dim], sequence by sequence, KV head by KV head.
        values: Prefix values, [rows, value_dim].
        positions: Original column of each row, [rows], int32, rising inside a segment.
        offsets: Segment borders, [batch * kv_heads + 1], int64.
        state: What the heuristic remembers of each row, [rows, channels], float32; the tokens of
            the tail have none yet.
        earlier_state: The state before the newest block was shown, as long as that block may be
            taken back; None otherwise.
        tail_keys: [batch, kv_heads, tail_capacity, head_dim].
        tail_values: [batch, kv_heads, tail_capacity, value_dim].
        tail_tokens: Tail slots in use.
        tail_first: Column of the tail's first slot.

    Args:
        region: Where everything lies. Its first rows are the prefix already.
        lengths: Rows of each segment, [batch, kv_heads], int64.
        positions: Of the prefix.
        state: Of the prefix.
        first_column: Column of the next token.
        tail: Free slots behind the prefix.
    """

    def __init__(
        self,
        region: Region,
        lengths: Tensor,
        positions: Tensor,
        state: Tensor,
        *,
        first_column: int,
        tail: int,
    ) -> None:
        self.region = region
        self.batch, self.kv_heads = lengths.shape
        self.offsets, self.positions, self.state = _borders(lengths.flatten()), positions, state
        self.earlier_state: Tensor | None = None
        self.tail_tokens, self.tail_first = 0, first_column
        self._prefix: Prefix | None = None
        self._bind(tail)

    @classmethod
    def of(
        cls, kept: PaddedTokens, keep: Tensor, region: Region, *, first_column: int, tail: int
    ) -> "RaggedStore":
        """Store the tokens of `kept` where `keep` is set, with `tail` free slots behind them."""
        lengths = keep.sum(-1)
        borders, places = _borders(lengths.flatten()).tolist(), keep.nonzero()[:, 2]
        assert borders[-1] <= len(region.keys), "a layer keeps more than there is memory for"
        for flat, tokens in ((region.keys, kept.keys), (region.values, kept.values)):
            for segment, (first, end) in enumerate(pairwise(borders)):
                row, head = divmod(segment, keep.shape[1])
                # straight into the region: no copy of all that is kept beside it
                torch.index_select(tokens[row, head], 0, places[first:end], out=flat[first:end])
        positions, state = kept.positions[keep].to(torch.int32), kept.state[keep]
        return cls(region, lengths, positions, state, first_column=first_column, tail=tail)

    @property
    def prefix(self) -> Prefix:
        """The prefix as attention knows it, looked at once."""
        if self._prefix is None:
            self._prefix = Prefix(self.keys, self.values, self.offsets, self.positions)
        return self._prefix

    @property
    def lengths(self) -> Tensor:
        """Rows of each segment, [batch, kv_heads], int64."""
        return self.offsets.diff().view(self.batch, self.kv_heads)

    @property
    def held_rows(self) -> int:
        """Rows of the prefix, and slots of the tail in use."""
        return len(self.positions) + self.batch * self.kv_heads * self.tail_tokens

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
        """All tokens held, in a rectangle: the prefix segments, then the tail.

        Args:
            dense: Copy keys and values too; if not, zeros that take no memory stand for them.
        """
        tokens = self._padded_prefix(dense).join(self._tail(dense))
        if dense:
            return tokens
        shape = tokens.valid.shape
        return replace(
            tokens,
            keys=self.keys.new_zeros(1).expand(*shape, self.keys.shape[-1]),
            values=self.values.new_zeros(1).expand(*shape, self.values.shape[-1]),
        )

    def merge(self, keep: Tensor, state: Tensor, tail: int) -> None:
        """Move what is kept of prefix and tail into a new prefix, with an empty tail behind it.

        Args:
            keep: What stays, in the places of `padded()`, [batch, kv_heads, tokens], bool.
            state: What the heuristic remembers, in the same places.
            tail: Slots of the new tail.
        """
        rows = torch.cat([self._prefix_rows()[0], self._tail_rows(self.tail_tokens)], 2)[keep]
        slots = self.tail_keys.shape[2]
        columns = torch.arange(self.tail_first, self.tail_first + slots).to(self.positions)
        in_tail = columns.repeat(self.batch * self.kv_heads)
        self.positions = torch.cat([self.positions, in_tail])[rows]
        self.offsets = _borders(keep.sum(-1).flatten())
        self.state, self.earlier_state = state[keep], None
        _rearrange(self.region, rows, self.region)
        self._empty_tail(self.tail_first + self.tail_tokens, tail)

    def select_rows(self, rows: Tensor) -> None:
        """Keep these sequences, in this order, repeats allowed: beam search and batch cuts."""
        if torch.equal(rows, torch.arange(self.batch, device=rows.device)):
            return
        lengths = self.lengths[rows].flatten()
        starts = self.offsets[:-1].view(self.batch, self.kv_heads)[rows].flatten()
        prefix = _spread(starts, lengths)
        free = len(self.region.keys) - len(prefix)
        slots = min(self.tail_keys.shape[2], free // len(lengths))
        tail = self._tail_rows(slots)[rows].flatten()
        _rearrange(self.region, torch.cat([prefix, tail]), self.region)
        self.batch = rows.numel()
        self._take(prefix, _borders(lengths))
        self._bind(slots)

    def crop(self, first_removed: int) -> None:
        """Forget every token at column `first_removed` and after it."""
        self.tail_tokens = min(self.tail_tokens, max(0, first_removed - self.tail_first))
        if first_removed >= self.tail_first:
            return
        slots = self.tail_keys.shape[2]
        keep = self.positions < first_removed
        owner = torch.repeat_interleave(self.lengths.reshape(-1))
        lengths = torch.bincount(owner[keep], minlength=self.batch * self.kv_heads)
        rows = keep.nonzero().flatten()
        _rearrange(self.region, rows, self.region)
        self._take(rows, _borders(lengths))
        self._empty_tail(first_removed, slots)

    def go_back(self) -> None:
        """Return to the state before the newest block was shown."""
        if self.earlier_state is not None:
            self.state, self.earlier_state = self.earlier_state, None

    def move(self, region: Region) -> None:
        """Go to the start of another region, which may overlap; free slots are given up."""
        prefix = torch.arange(len(self.positions), device=self.offsets.device)
        rows = torch.cat([prefix, self._tail_rows(self.tail_tokens).flatten()])
        _rearrange(self.region, rows, region)
        self.rebind(region)

    def rebind(self, region: Region) -> None:
        """Stay in a region to whose start somebody else copied all rows held."""
        self.region = region
        self._bind(self.tail_tokens)

    def _empty_tail(self, first_column: int, slots: int) -> None:
        self.tail_tokens, self.tail_first = 0, first_column
        self._bind(slots)

    def _bind(self, slots: int) -> None:
        """Look at the region: the prefix, and a tail of so many slots behind it."""
        rows = len(self.positions)
        end = rows + self.batch * self.kv_heads * slots
        shape = (self.batch, self.kv_heads, slots, -1)
        self.keys, self.values = self.region.keys[:rows], self.region.values[:rows]
        self.tail_keys = self.region.keys[rows:end].view(*shape[:3], self.keys.shape[1])
        self.tail_values = self.region.values[rows:end].view(*shape[:3], self.values.shape[1])
        self._prefix = None

    def _prefix_rows(self) -> tuple[Tensor, Tensor]:
        """Row of each place of the padded prefix, and which places hold one."""
        lengths = self.lengths
        place = torch.arange(int(lengths.max()), device=lengths.device)
        valid = place < lengths[..., None]
        first = self.offsets[:-1].view(self.batch, self.kv_heads, 1)
        return (first + place).masked_fill(~valid, 0), valid

    def _tail_rows(self, slots: int) -> Tensor:
        """Row of each of the tail's first slots, [batch, kv_heads, slots]."""
        shape = self.tail_keys.shape[:3]
        rows = torch.arange(shape.numel(), device=self.offsets.device).view(shape)
        return rows[:, :, :slots] + len(self.positions)

    def _padded_prefix(self, dense: bool) -> PaddedTokens:
        rows, valid = self._prefix_rows()
        nothing = self.keys.new_empty(*valid.shape, 0)
        return PaddedTokens(
            self.keys[rows] if dense else nothing,
            self.values[rows] if dense else nothing,
            self.positions[rows].long(),
            valid,
            self.state[rows].masked_fill(~valid[..., None], 0.0),
        )

    def _tail(self, dense: bool) -> PaddedTokens:
        keys = self.tail_keys[:, :, : self.tail_tokens]
        values = self.tail_values[:, :, : self.tail_tokens]
        every = torch.ones(self.batch, self.tail_tokens, dtype=torch.bool, device=self.keys.device)
        nothing = self.tail_keys.new_empty(*self.tail_keys.shape[:2], self.tail_tokens, 0)
        tail = (keys, values) if dense else (nothing, nothing)
        return block_tokens(*tail, self.tail_first, every, self.state.shape[1])

    def _take(self, rows: Tensor, offsets: Tensor) -> None:
        self.positions, self.offsets = self.positions[rows], offsets
        self.state = self.state[rows]
        self.earlier_state = None if self.earlier_state is None else self.earlier_state[rows]

    def kept_positions(self) -> list[list[Tensor]]:
        """Sorted columns held, per sequence and KV head: the prefix, then the tail."""
        tail = torch.arange(self.tail_first, self.tail_first + self.tail_tokens)
        borders = self.offsets.tolist()
        segments = [
            torch.cat([self.positions[a:b].long().cpu(), tail]) for a, b in pairwise(borders)
        ]
        return [
            segments[row * self.kv_heads : (row + 1) * self.kv_heads] for row in range(self.batch)
        ]

    def overhead_nbytes(self) -> int:
        """Bytes of everything kept beside K and V: positions, offsets, the heuristic's state."""
        earlier = () if self.earlier_state is None else (self.earlier_state,)
        derived = 0 if self._prefix is None else self._prefix.nbytes()
        return storage_bytes(self.positions, self.offsets, self.state, *earlier) + derived


def _rearrange(source: Region, rows: Tensor, target: Region) -> None:
    """Copy these rows to the start of a region, which may be the same or overlap."""
    target.keys[: len(rows)] = source.keys.index_select(0, rows)
    target.values[: len(rows)] = source.values.index_select(0, rows)


def _borders(lengths: Tensor) -> Tensor:
    """Offsets of segments of these lengths laid back to back, [segments + 1]."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _spread(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers `start, start + 1, ...` of each segment, one segment after the other."""
    skipped = lengths.cumsum(0) - lengths
    within = torch.arange(int(lengths.sum()), device=lengths.device)
    return within + torch.repeat_interleave(starts - skipped, lengths)


def storage_bytes(*tensors: Tensor) -> int:
    """Bytes of the storages that these tensors are views of, each counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    sizes = {(storage.device, storage.data_ptr()): storage.nbytes() for storage in storages}
    return sum(sizes.values())
