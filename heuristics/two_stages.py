"""Selection in two stages, as one order of the tokens.

At a capacity of ``b`` tokens, the first stage keeps the ``floor(share * b)`` best tokens by one
number, the second fills up with the best of the others by another number. One token more of
capacity is one token more in one of the two stages, and never drops a token: if the first stage
takes one that the second had taken, the second takes its next one instead. So the selections at
all capacities lie inside each other, and one order gives them all.

Reference:
    Claude and Navarro, "The Wavelet Matrix", SPIRE 2012, for the order statistics of suffixes.
    https://doi.org/10.1007/978-3-642-34109-0_18
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def two_stage_score(first: Tensor, second: Tensor, valid: Tensor, share: float) -> Tensor:
    """Score tokens so that the best ``b`` are what two stages select at capacity ``b``.

    Args:
        first: Number that decides in the first stage, higher is better, [batch, kv_heads, tokens].
        second: Number that decides in the second stage, same shape.
        valid: Which places hold a token, bool, same shape.
        share: Part of every capacity that the first stage fills, 0 to 1.

    Returns:
        Minus the smallest capacity at which a token is selected, float32, all different where
        ``valid``. Of equal numbers the earlier place is better.
    """
    tokens = valid.shape[-1]
    first_rank, second_rank = _rank(first, valid), _rank(second, valid)
    by_first = torch.empty_like(second_rank).scatter_(-1, first_rank, second_rank)
    capacity = torch.arange(1, tokens + 1, device=valid.device)
    in_first = (capacity * share).long()
    # the second stage takes what it ranks up to here
    reach = _nth_of_suffix(by_first, in_first, capacity - in_first - 1)
    reach = reach.masked_fill(capacity == in_first, -1)
    by_stage = (
        torch.searchsorted(in_first, first_rank, right=True),
        torch.searchsorted(reach, second_rank),
    )
    return -(1 + torch.minimum(*by_stage)).float()


def _rank(numbers: Tensor, valid: Tensor) -> Tensor:
    """How many tokens are better than each one; places without a token come last."""
    order = numbers.masked_fill(~valid, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(valid.shape[-1], device=valid.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, ranks)


def _nth_of_suffix(permutation: Tensor, start: Tensor, nth: Tensor) -> Tensor:
    """Number ``nth``, counted from the smallest as 0, of ``permutation[start:]``.

    Args:
        permutation: Some order of the numbers below tokens, int64, [batch, kv_heads, tokens].
        start: First places of the suffixes, int64, [queries].
        nth: Which number of each, int64, [queries].

    Returns:
        Numbers, [batch, kv_heads, queries].
    """
    tokens = permutation.shape[-1]
    shape = (*permutation.shape[:-1], len(start))
    low, left = start.expand(shape), nth.expand(shape)
    high, found = torch.full_like(low, tokens), torch.zeros_like(low)
    # bit by bit from the highest: is the wanted number among those with a 0 or with a 1 there?
    for bit in reversed(range(tokens.bit_length())):
        is_one = (permutation >> bit & 1).bool()
        zeros = torch.nn.functional.pad((~is_one).cumsum(dim=-1), (1, 0))
        zeros_low, zeros_high, all_zeros = (
            zeros.gather(-1, low),
            zeros.gather(-1, high),
            zeros[..., -1:],
        )
        in_ones = left >= zeros_high - zeros_low
        left = torch.where(in_ones, left - (zeros_high - zeros_low), left)
        low = torch.where(in_ones, all_zeros + low - zeros_low, zeros_low)
        high = torch.where(in_ones, all_zeros + high - zeros_high, zeros_high)
        found = found + (in_ones.long() << bit)
        # numbers with a 0 move in front of those with a 1
        permutation = permutation.gather(-1, is_one.to(torch.uint8).argsort(dim=-1, stable=True))
    return found
