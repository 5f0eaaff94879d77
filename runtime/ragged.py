"""Storage for caches of unequal length: a flat prefix with offsets, and a dense tail.

The prefix holds the kept tokens of every (sequence, KV head) back to back. Tokens decoded since
the last eviction wait in the tail, which is rectangular because every head gets every new token.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor


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

    def from_column(self, first: int) -> Tensor:
        """Valid places whose token stands at column `first` or behind, as a mask."""
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
    """

    def __init__(self, kept: PaddedTokens, keep: Tensor, *, first_column: int, tail: int) -> None:
        """Store the tokens of `kept` where `keep` is set, with `tail` free slots behind them."""
        self.batch, self.kv_heads = keep.shape[:2]
        self.offsets = _borders(keep.sum(-1).flatten())
        self.keys, self.values = kept.keys[keep], kept.values[keep]
        self.positions = kept.positions[keep].to(torch.int32)
        self.state = kept.state[keep]
        self.earlier_state: Tensor | None = None
        self.tail_tokens = 0
        self._empty_tail(first_column, tail)

    @property
    def lengths(self) -> Tensor:
        """Rows of each segment, [batch, kv_heads], int64."""
        return self.offsets.diff().view(self.batch, self.kv_heads)

    @property
    def free_tail(self) -> int:
        """Tail slots not yet in use."""
        return self.tail_keys.shape[2] - self.tail_tokens

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Put new tokens, [batch, kv_heads, new, dim], into the free slots of the tail."""
        end = self.tail_tokens + keys.shape[2]
        self.tail_keys[:, :, self.tail_tokens : end] = keys
        self.tail_values[:, :, self.tail_tokens : end] = values
        self.tail_tokens = end

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
        in_prefix, in_tail = keep.tensor_split([keep.shape[2] - self.tail_tokens], 2)
        from_prefix, from_tail = (
            self._prefix_rows()[0][in_prefix],
            in_tail.flatten().nonzero()[:, 0],
        )
        num_prefix, num_tail = in_prefix.sum(-1).flatten(), in_tail.sum(-1).flatten()
        self.offsets = _borders(num_prefix + num_tail)
        to_prefix = _spread(self.offsets[:-1], num_prefix)
        to_tail = _spread(self.offsets[:-1] + num_prefix, num_tail)
        size = int(self.offsets[-1])

        def merged(prefix: Tensor, tail: Tensor) -> Tensor:
            out = prefix.new_empty(size, *prefix.shape[1:])
            out[to_prefix] = prefix[from_prefix]
            out[to_tail] = tail.flatten(0, 2)[from_tail]
            return out

        used = slice(0, self.tail_tokens)
        columns = torch.arange(self.tail_first, self.tail_first + self.tail_tokens)
        columns = columns.to(self.positions).expand(self.batch, self.kv_heads, -1)
        self.keys = merged(self.keys, self.tail_keys[:, :, used])
        self.values = merged(self.values, self.tail_values[:, :, used])
        self.positions = merged(self.positions, columns)
        self.state, self.earlier_state = state[keep], None
        self._empty_tail(self.tail_first + self.tail_tokens, tail)

    def _empty_tail(self, first_column: int, slots: int) -> None:
        shape = (self.batch, self.kv_heads, slots)
        self.tail_keys = self.keys.new_zeros(*shape, self.keys.shape[-1])
        self.tail_values = self.values.new_zeros(*shape, self.values.shape[-1])
        self.tail_tokens, self.tail_first = 0, first_column

    def _prefix_rows(self) -> tuple[Tensor, Tensor]:
        """Row of each place of the padded prefix, and which places hold one."""
        lengths = self.lengths
        place = torch.arange(int(lengths.max()), device=lengths.device)
        valid = place < lengths[..., None]
        first = self.offsets[:-1].view(self.batch, self.kv_heads, 1)
        return (first + place).masked_fill(~valid, 0), valid

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

    def select_rows(self, rows: Tensor) -> None:
        """Keep these sequences, in this order, repeats allowed: beam search and batch cuts."""
        lengths = self.lengths[rows].flatten()
        starts = self.offsets[:-1].view(self.batch, self.kv_heads)[rows].flatten()
        self._take(_spread(starts, lengths), _borders(lengths))
        self.tail_keys, self.tail_values = self.tail_keys[rows], self.tail_values[rows]
        self.batch = rows.numel()

    def crop(self, first_removed: int) -> None:
        """Forget every token at column `first_removed` and after it."""
        self.tail_tokens = min(self.tail_tokens, max(0, first_removed - self.tail_first))
        if first_removed >= self.tail_first:
            return
        self.tail_first = first_removed
        keep = self.positions < first_removed
        owner = torch.repeat_interleave(self.lengths.reshape(-1))
        lengths = torch.bincount(owner[keep], minlength=self.batch * self.kv_heads)
        self._take(keep.nonzero().flatten(), _borders(lengths))

    def go_back(self) -> None:
        """Return to the state before the newest block was shown."""
        if self.earlier_state is not None:
            self.state, self.earlier_state = self.earlier_state, None

    def _take(self, rows: Tensor, offsets: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]
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

    def nbytes(self) -> int:
        """Bytes of the live K and V storages."""
        return _storage_bytes(self.keys, self.values, self.tail_keys, self.tail_values)

    def overhead_nbytes(self) -> int:
        """Bytes of everything kept beside K and V: positions, offsets, the heuristic's state."""
        earlier = () if self.earlier_state is None else (self.earlier_state,)
        return _storage_bytes(self.positions, self.offsets, self.state, *earlier)


def _borders(lengths: Tensor) -> Tensor:
    """Offsets of segments of these lengths laid back to back, [segments + 1]."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _spread(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers `start, start + 1, ...` of each segment, one segment after the other."""
    skipped = lengths.cumsum(0) - lengths
    within = torch.arange(int(lengths.sum()), device=lengths.device)
    return within + torch.repeat_interleave(starts - skipped, lengths)


def _storage_bytes(*tensors: Tensor) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())
