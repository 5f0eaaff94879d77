"""Tokens of one layer in a rectangle, as heuristics see them."""

from dataclasses import dataclass

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


def rows_of(flat: Tensor, rows: Tensor, dense: bool) -> Tensor:
    """These rows, [segments, tokens, dim], or zeros that take no memory."""
    if not dense:
        return flat.new_zeros(1).expand(*rows.shape, flat.shape[1])
    return flat.index_select(0, rows.flatten()).view(*rows.shape, flat.shape[1])


def state_of(keep: Tensor, state: Tensor, count: int) -> Tensor:
    """The state of the `count` tokens kept, [tokens, channels]."""
    return state[keep] if state.shape[-1] else state.new_empty(count, 0)
