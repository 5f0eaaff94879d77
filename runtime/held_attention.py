"""Attention of newer tokens over what a layer holds."""

import torch
from torch import Tensor

from kvbudget.kernels import ragged_attention

from .attention_call import QUERY_CHUNK, AttentionCall, LogitRules
from .ragged import RaggedStore


def attend_tail(
    store: RaggedStore,
    rules: LogitRules,
    window: int | None,
    queries: Tensor,
    seen_tokens: int,
    lengths: Tensor | None = None,
) -> Tensor:
    """Attention of tokens that are in the tail already.

    Args:
        store: What is held.
        rules: What is applied to the logits.
        window: Sliding window in tokens, None for full attention.
        queries: [batch, heads, new, head_dim].
        seen_tokens: Columns seen, the new ones included.
        lengths: Tokens of the tail and columns seen as a device knows them, int32 [2]; or None.

    Returns:
        [batch, heads, new, value_dim].
    """
    tail = (store.tail_keys, store.tail_values, store.tail_tokens)
    return _ragged(store, rules, window, queries, tail, seen_tokens, lengths)


@torch.inference_mode(False)
def attend_block(
    store: RaggedStore,
    rules: LogitRules,
    window: int | None,
    call: AttentionCall,
    seen_tokens: int,
) -> Tensor:
    """Attention of a block that is stored nowhere yet, in query chunks, the block behind the tail.

    Returns:
        [batch, heads, new, value_dim].
    """
    new, used = call.keys.shape[2], store.tail_tokens
    first = seen_tokens - new
    keys = torch.cat([store.tail_keys[:, :, :used], call.keys.detach()], 2)
    values = torch.cat([store.tail_values[:, :, :used], call.values.detach()], 2)
    parts = []
    for start in range(0, new, QUERY_CHUNK):
        end = min(start + QUERY_CHUNK, new)
        queries, tail = call.queries[:, :, start:end], (keys, values, used + end)
        parts.append(_ragged(store, rules, window, queries, tail, first + end, None))
    return torch.cat(parts, 2)


def _ragged(
    store: RaggedStore,
    rules: LogitRules,
    window: int | None,
    queries: Tensor,
    tail: tuple[Tensor, Tensor, int],
    seen_tokens: int,
    lengths: Tensor | None,
) -> Tensor:
    return ragged_attention(
        queries,
        store.keys,
        store.values,
        store.segments.offsets,
        store.segments.positions,
        *tail,
        seen_tokens=seen_tokens,
        scaling=rules.scaling,
        window=window,
        softcap=rules.softcap,
        slopes=rules.slopes,
        sinks=rules.sinks,
        prefix=store.prefix,
        ends=store.segments.ends,
        lengths=lengths,
    )
