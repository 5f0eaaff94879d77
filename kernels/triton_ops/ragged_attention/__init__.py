"""Attention of the newest queries over a ragged prefix and a dense tail."""

from __future__ import annotations

import torch
from torch import Tensor

from ..available import triton_is_installed
from . import reference
from .arguments import check, check_lengths, check_mass, check_rules
from .prefix import Prefix

__all__ = ["Prefix", "ragged_attention"]


def ragged_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    offsets: Tensor,
    positions: Tensor,
    tail_keys: Tensor,
    tail_values: Tensor,
    tail_tokens: int,
    *,
    seen_tokens: int,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    first_seen: Tensor | None = None,
    mass: Tensor | None = None,
    tail_mass: Tensor | None = None,
    prefix: Prefix | None = None,
    ends: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Attend to a flat prefix of unequal segments and to a rectangular tail, in one softmax.

    Segment `p = b * kv_heads + h` of the prefix, rows `offsets[p]:offsets[p + 1]`, holds what KV
    head `h` of sequence `b` kept, in any order; with `ends` only the rows `offsets[p]:ends[p]` do,
    and those behind them are free. Every KV head has seen every token since, so these lie in the
    tail: its slot `t` has position `seen_tokens - tail_tokens + t`. Query `i` has position
    `seen_tokens - new + i` and sees the keys at its own position and before, no further back
    than `window` positions (its own included), and none before its `first_seen`. Query head `j`
    reads KV head `j // group`, where `group = heads // kv_heads`. A logit `s = scaling * (q . k)`
    becomes `c * tanh(s / c)` with softcap `c`, or `s + slope * (key position - query position)`
    with a slope; it cannot have both. A sink adds its own logit, as it is, to the denominator only.

    A query that sees nothing gets zeros. No gradient flows back: `backward` raises. All tensors
    but `queries` are contiguous; they may be rows of a larger storage.

    Args:
        queries: [batch, heads, new, head_dim], any strides.
        keys: [rows, head_dim], dtype of `queries`.
        values: [rows, value_dim], dtype of `queries`.
        offsets: int64 [batch * kv_heads + 1], never falling, from 0 to at most `rows`.
        positions: int32 [rows], column of each row in its sequence, below `seen_tokens`.
        tail_keys: [batch, kv_heads, tail_capacity, head_dim]; only slots below `tail_tokens`
            are read.
        tail_values: [batch, kv_heads, tail_capacity, value_dim].
        tail_tokens: Slots of the tail in use, the same for all sequences and KV heads.
        seen_tokens: Columns seen so far, the new ones included.
        scaling: Factor on the products of queries and keys.
        window: Sliding window in tokens; None is full attention.
        softcap: Bound on the absolute logit; None is no bound.
        slopes: Linear bias (ALiBi) of each query head, float32 [heads].
        sinks: Learned sink logit of each query head, [heads].
        first_seen: First position that each new token may see, int32 or int64 [batch, new], for
            attention in chunks; None is 0.
        mass: float32 [rows]; what each row was attended, summed over the new queries and
            averaged over the group, is added in place.
        tail_mass: float32 [batch, kv_heads, tail_capacity]; the same for the tail.
        prefix: `Prefix(keys, values, offsets, positions, ends)`, kept from call to call: it spares
            looking at them again. Tell it when one of them was changed in place.
        ends: Row behind the last one of each segment, int64 [batch * kv_heads], from `offsets[p]`
            to `offsets[p + 1]`; None if the segments lie back to back.
        lengths: int32 [2], `tail_tokens` and `seen_tokens` as the device of the queries knows
            them: kernels then read them there, so that a captured CUDA graph stays right when they
            change. The two numbers must be right as well, and are what the CPU reads.

    Returns:
        [batch, heads, new, value_dim], contiguous, in the dtype of `queries`.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape, a length or a setting is wrong.
    """
    tensors = (queries, keys, values, offsets, positions, tail_keys, tail_values)
    check(*tensors, tail_tokens, seen_tokens, prefix, ends)
    check_rules(queries, window, softcap, slopes, sinks, first_seen)
    if lengths is not None:
        check_lengths(queries, lengths)
    if mass is not None or tail_mass is not None:
        check_mass(keys, tail_keys, mass, tail_mass)
    if queries.is_cuda and triton_is_installed() and _triton_serves(queries, values):
        # only here, so that machines without a GPU need no triton
        from .triton_kernel import ragged_attention as implementation
    else:
        implementation = reference.ragged_attention
    with torch.no_grad():
        out = implementation(
            *tensors,
            tail_tokens,
            seen_tokens=seen_tokens,
            scaling=scaling,
            window=window,
            softcap=softcap,
            slopes=slopes,
            sinks=sinks,
            first_seen=first_seen,
            mass=mass,
            tail_mass=tail_mass,
            prefix=prefix,
            ends=ends,
            lengths=lengths,
        )
    if torch.is_grad_enabled() and queries.requires_grad:
        return _refuse_backward(out, queries)
    return out


def _triton_serves(queries: Tensor, values: Tensor) -> bool:
    """Whether a tile of these widths fits a GPU's shared memory."""
    head_dim, value_dim = queries.shape[-1], values.shape[-1]
    if queries.dtype in (torch.float16, torch.bfloat16):
        return head_dim <= 576 and value_dim <= 512
    return queries.dtype == torch.float32 and max(head_dim, value_dim) <= 256


class _NoBackward(torch.autograd.Function):
    """Hands `out` on; a backward pass that reaches it fails by name, not with wrong gradients."""

    @staticmethod
    def forward(ctx: object, out: Tensor, queries: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError(
            "`ragged_attention` must not be differentiated: evicted tokens have no gradient. "
            "Train without a budgeted cache."
        )


def _refuse_backward(out: Tensor, queries: Tensor) -> Tensor:
    guarded: Tensor = _NoBackward.apply(out, queries)  # type: ignore[no-untyped-call]
    return guarded
