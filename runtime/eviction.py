"""Which tokens stay: scores and capacities in, a keep mask out.

The order of the tokens of a cache does not depend on how many are kept: the first tokens (sinks)
come first, then the most recent ones, then the others by score. Whatever is kept at a small
capacity is therefore kept at every larger one, so one order serves all levels of a profile and
the running cache alike.

Reference:
    Xiao et al., "Efficient Streaming Language Models with Attention Sinks", ICLR 2024, for the
    protected sinks and recent tokens. https://arxiv.org/abs/2309.17453
"""

import torch
from torch import Tensor

from kvbudget.kernels import select_top

SINK_TOKENS = 4
RECENT_TOKENS = 16
MAX_TAIL_TOKENS = 32
SHORTEST_TAIL = 8

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1


def keep_order(
    scores: Tensor, valid: Tensor, *, sinks: int = SINK_TOKENS, recent: int = RECENT_TOKENS
) -> Tensor:
    """Sort the tokens of every cache, the ones to keep longest first.

    Args:
        scores: Worth of each token, [batch, kv_heads, tokens], float32, higher means keep.
        valid: Tokens that exist and may still be seen, same shape, bool.
        sinks: First valid tokens that go before all others.
        recent: Last valid tokens that go next, the newest first.

    Returns:
        Token indices, [batch, kv_heads, tokens]; invalid tokens come last. Equal scores keep
        the order of their positions, so every device gives the same result.
    """
    codes = _codes(scores, valid, sinks, recent)
    return codes.argsort(dim=-1, descending=True, stable=True)


def select(
    scores: Tensor,
    valid: Tensor,
    capacity_tokens: Tensor,
    *,
    sinks: int = SINK_TOKENS,
    recent: int = RECENT_TOKENS,
) -> Tensor:
    """Keep the best tokens of every cache, each cache as many as it has room for.

    Args:
        scores: Worth of each token, [batch, kv_heads, tokens], float32, higher means keep.
        valid: Tokens that exist and may still be seen, same shape, bool.
        capacity_tokens: Room of each cache, [batch or 1, kv_heads], int64, at least 0.
        sinks: First valid tokens that are kept before all others.
        recent: Last valid tokens that are kept next.

    Returns:
        Keep mask, [batch, kv_heads, tokens], bool; a cache with room for all its valid tokens
        keeps all of them.
    """
    codes = _codes(scores, valid, sinks, recent)
    counts = capacity_tokens.expand(valid.shape[:2]).reshape(-1).to(valid.device)
    # a cache with more room than valid tokens is given invalid ones too
    return select_top(codes.flatten(0, 1), counts).view(valid.shape) & valid


def _codes(scores: Tensor, valid: Tensor, sinks: int, recent: int) -> Tensor:
    """One number per token that sorts tokens as `keep_order` does, int32.

    The bits of a float32 read as a whole number rise with it, if those of negative ones are
    turned round. Above the code of infinity and below that of minus infinity codes are free:
    protected tokens take the highest ones, each its own, and invalid tokens the lowest.
    """
    tokens = valid.shape[-1]
    sinks, recent = min(sinks, tokens), min(recent, tokens)
    # adding zero makes a zero of either sign the positive one
    bits = (scores.float() + 0.0).view(torch.int32)
    codes = (bits >> 31).bitwise_and_(_HIGHEST).bitwise_xor_(bits)
    rank = valid.cumsum(-1, dtype=torch.int32)  # 1 for the first valid token
    from_end = rank[..., -1:] - rank  # 0 for the last valid token
    codes = torch.where(from_end < recent, _HIGHEST - sinks - from_end, codes)
    codes = torch.where(rank <= sinks, _HIGHEST + 1 - rank, codes)
    return codes.masked_fill_(~valid, _LOWEST)


def tail_slots(capacities: Tensor, held_tokens: Tensor, new: int) -> int:
    """Slots of the dense tail after an eviction, every cache of a layer getting equally many.

    A full cache gives the slots out of its own capacity. A cache that still has room must not
    lose a token to the tail, so the tail is never longer than the room it has left. Free slots
    are memory too, so there are no more of them than a quarter of what the largest cache holds.

    Args:
        capacities: Room of each cache, [batch or 1, kv_heads], int64.
        held_tokens: Tokens each cache holds now, [batch, kv_heads], int64.
        new: Tokens that need a slot at once, at most `longest_tail(capacities)`.
    """
    slack = capacities - held_tokens
    roomy = slack[slack >= new]
    wanted = max(new, SHORTEST_TAIL, int(held_tokens.max()) // 4)
    longest = min(longest_tail(capacities), wanted)
    return min(longest, int(roomy.min())) if len(roomy) else longest


def longest_tail(capacities: Tensor) -> int:
    """Most tokens that may wait in the tail: the smallest cache must keep more than recent ones."""
    return max(1, min(MAX_TAIL_TOKENS, int(capacities.min()) // 2))
