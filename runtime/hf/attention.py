"""The attention function that transformers calls in place of its own."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from kvbudget.allocator import UnsupportedModel

from ..attention_call import AttentionCall, LogitRules, dense_attention
from .graph_ops import attention_in_graph
from .handoff import NOT_IN_GRAPHS, Arrival, TaggingLayer, take_over, take_traced

# keywords of attention calls that do not change the result of a plain causal decoder
_HARMLESS = frozenset(
    "is_causal position_ids use_cache output_attentions output_hidden_states output_router_logits "
    "cache_position num_items_in_batch layer_idx is_first_iteration logits_to_keep return_dict "
    "token_type_ids inputs_embeds tokenizer assistant_tokenizer".split()
)


def registered_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sinks: Tensor | None = None,
    position_bias: Tensor | None = None,
    slopes: Tensor | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; transformers fixes the signature.

    Returns:
        [batch, new, heads, value_dim], and None in place of the weights.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rules = LogitRules(scale, softcap, s_aux if sinks is None else sinks, slopes)
    call = AttentionCall(module, query, key, value, attention_mask, rules, position_bias)
    traced = take_traced(key)
    if traced is None:
        return _attention_now(call, dropout, sliding_window, extra), None
    cache, number = traced
    layer, graph = cache.traced_layer(number)
    is_special = dropout or call.has_own_logits or _unknown(extra)
    if is_special or sliding_window not in (None, layer.window):
        # refused, or done, outside of graphs
        keys, values = cache.update_now(key, value, number)
        call = replace(call, keys=keys, values=values)
        return _attention_now(call, dropout, sliding_window, extra), None
    return attention_in_graph(graph, layer.index, call, sliding_window), None


@torch.compiler.disable(reason=NOT_IN_GRAPHS)  # type: ignore[untyped-decorator]
def _attention_now(
    call: AttentionCall, dropout: float, window: int | None, extra: dict[str, Any]
) -> Tensor:
    taken = take_over(call.module, call.keys, call.values)
    if taken is None:
        return _foreign_attention(call, dropout, extra)
    layer, arrival = taken
    _check_keywords(call.module, dropout, extra)
    check_call(layer, call, window)
    if arrival is Arrival.UNTOUCHED:
        return layer.attend(call)
    if arrival is Arrival.AGAIN:
        return layer.attend_again(call)
    return layer.attend_rewritten(call)


def ordinary_attention(call: AttentionCall) -> Tensor:
    """Attention over the call's own keys as transformers computes it: [batch, new, heads, dim]."""
    return _foreign_attention(call, 0.0, {})


def _foreign_attention(call: AttentionCall, dropout: float, extra: dict[str, Any]) -> Tensor:
    """The same for a call that none of our caches takes part in, such as that of a vision tower."""
    rules = call.rules
    special = (rules.softcap, rules.sinks, rules.slopes, call.bias)
    if any(each is not None for each in special):
        return dense_attention(_from_the_left(call))
    output, _ = sdpa_attention_forward(
        call.module,
        call.queries,
        _per_head(call.module, call.keys, call.queries),
        _per_head(call.module, call.values, call.queries),
        call.mask,
        dropout=dropout,
        scaling=rules.scaling,
        **extra,
    )
    return output


def _from_the_left(call: AttentionCall) -> AttentionCall:
    """The call without columns that are not filled yet, as behind the prompt in a static cache.

    Without a mask the first query sees the first column, not as many as there are columns more.
    """
    new = call.queries.shape[2]
    if call.mask is not None or new == 1:
        return call
    return replace(call, keys=call.keys[:, :, :new], values=call.values[:, :, :new])


def _per_head(module: nn.Module, stored: Tensor, queries: Tensor) -> Tensor:
    """Keys or values once per query head, if the module does not tell how many of them share."""
    if getattr(module, "num_key_value_groups", None) is not None:
        return stored
    return stored.repeat_interleave(queries.shape[1] // stored.shape[1], 1)


def _check_keywords(module: nn.Module, dropout: float, extra: dict[str, Any]) -> None:
    unknown = _unknown(extra)
    if unknown:
        raise UnsupportedModel(
            f"{type(module).__name__}: the attention uses {', '.join(unknown)}, which kvbudget "
            f"does not know."
        )
    if dropout:
        raise ValueError(
            f"{type(module).__name__}: attention dropout is on. Call model.eval() first."
        )


def _unknown(extra: dict[str, Any]) -> list[str]:
    used = sorted(key for key, value in extra.items() if value is not None)
    return [key for key in used if key not in _HARMLESS]


def check_call(layer: TaggingLayer, call: AttentionCall, window: int | None) -> None:
    """Refuse a call that attends in another way than its layer.

    Args:
        layer: The layer.
        call: The call.
        window: Sliding window at the call, if it tells one.

    Raises:
        UnsupportedModel: Says how.
    """
    name = f"{type(call.module).__name__}, layer {layer.number}"
    if window is not None and window != layer.window:
        raise UnsupportedModel(
            f"{name}: a window of {window} tokens at the call, but {layer.window} in the cache."
        )
    if window is None and _reaches_beyond(call, layer.window):
        raise UnsupportedModel(
            f"{name}: its attention reaches back further than the {layer.window} tokens that its "
            f"own cache keeps, so it depends on how a text is divided into blocks."
        )
    if call.mask is not None and (call.mask.dim() != 4 or call.mask.shape[1] != 1):
        raise UnsupportedModel(f"{name}: the attention mask differs between heads.")


def _reaches_beyond(call: AttentionCall, window: int | None) -> bool:
    """Whether the last of a prompt's tokens sees more than the window of its layer."""
    if window is None or call.queries.shape[2] <= window:
        return False
    seen = call.seen()
    return seen is None or bool(seen[:, -1, :-window].any())
