"""One call of a model's attention, as our cache layers see it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

QUERY_CHUNK = 256
_HIDDEN_BELOW = -1e3


@dataclass(frozen=True, slots=True)
class LogitRules:
    """What a layer applies to its logits, the same at every call.

    Args:
        scaling: Factor on the products of queries and keys.
        softcap: Logits become `softcap * tanh(logits / softcap)`; None leaves them.
        sinks: Learned sink logits, [heads], or of each query, [batch, heads, new, 1]; or None.
        slopes: Linear biases: a logit grows by its head's slope for every column that its key lies
            nearer to the end, [heads], float32; or None. A softcap does not go with it.
    """

    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None
    slopes: Tensor | None = None


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """Queries and the new keys and values of one layer, with all that shapes their attention.

    Args:
        module: The attention module that made the call.
        queries: [batch, heads, new, head_dim], rotated.
        keys: Keys of the new tokens only, [batch, kv_heads, new, head_dim].
        values: Values of the new tokens only, [batch, kv_heads, new, value_dim].
        mask: What each query may see, [batch, 1, new, columns], bool (True: seen) or an
            additive float; None means plain causal order.
        rules: What is applied to the logits.
        bias: What else is added to the logits, [batch or 1, heads, new, columns], or None.
    """

    module: nn.Module
    queries: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor | None
    rules: LogitRules
    bias: Tensor | None = None

    @property
    def has_own_logits(self) -> bool:
        """Whether the logits depend on more than keys, queries and positions."""
        sinks = self.rules.sinks
        return self.bias is not None or (sinks is not None and sinks.dim() == 4)

    def real_tokens(self) -> Tensor:
        """Which of the new tokens are no padding, [batch, new], bool.

        A token is real when its own query may see it, so the mask's last diagonal tells.
        """
        batch, _, new, _ = self.queries.shape
        seen = self.seen()
        if seen is None:
            return torch.ones(batch, new, dtype=torch.bool, device=self.queries.device)
        return seen.diagonal(offset=seen.shape[-1] - new, dim1=-2, dim2=-1).expand(batch, new)

    def seen(self) -> Tensor | None:
        """Which columns each query may see by the mask, [batch or 1, new, columns], bool."""
        if self.mask is None:
            return None
        mask = self.mask[:, 0]
        # additive masks hide with any large negative number, not only with the lowest
        return mask if mask.dtype == torch.bool else mask > _HIDDEN_BELOW


def dense_attention(call: AttentionCall) -> Tensor:
    """Attention over the call's own keys with all that shapes the logits, in query chunks.

    Logits and softmax are float32; memory is linear in the number of tokens.

    Returns:
        [batch, new, heads, value_dim], the layout that transformers expects.
    """
    chunks = range(0, call.queries.shape[2], QUERY_CHUNK)
    parts = [_attend_rows(call, slice(first, first + QUERY_CHUNK)) for first in chunks]
    return torch.cat(parts, 2).transpose(1, 2).contiguous()


def _attend_rows(call: AttentionCall, rows: slice) -> Tensor:
    batch, heads, _, head_dim = call.queries.shape
    kv_heads, columns = call.keys.shape[1:3]
    queries = call.queries[:, :, rows].reshape(batch, kv_heads, -1, head_dim).float()
    rules = call.rules
    logits = (queries @ call.keys.float().mT * rules.scaling).view(batch, heads, -1, columns)
    if rules.softcap is not None:
        logits = torch.tanh(logits / rules.softcap) * rules.softcap
    if rules.slopes is not None:
        logits = logits + _linear_bias(rules.slopes, call, rows)
    if call.bias is not None:
        logits = logits + call.bias[:, :, rows].float()
    logits = logits + _additive_mask(call, rows, logits)
    if rules.sinks is not None:
        logits = torch.cat([logits, _sink_column(rules.sinks, rows, logits)], -1)
    weights = logits.softmax(-1)[..., :columns]
    mixed = weights.reshape(batch, kv_heads, -1, columns) @ call.values.float()
    return mixed.view(batch, heads, -1, call.values.shape[-1]).to(call.queries.dtype)


def _linear_bias(slopes: Tensor, call: AttentionCall, rows: slice) -> Tensor:
    """Bias of every pair, [heads, rows, columns]: 0 where a query meets its own key."""
    column = torch.arange(call.keys.shape[2], device=slopes.device)
    distance = column - _query_columns(call, rows)[:, None]
    return slopes[:, None, None] * distance


def _query_columns(call: AttentionCall, rows: slice) -> Tensor:
    """Columns of some of the queries, which are those of the last columns."""
    columns, new = call.keys.shape[2], call.queries.shape[2]
    return torch.arange(columns - new, columns, device=call.keys.device)[rows]


def _sink_column(sinks: Tensor, rows: slice, logits: Tensor) -> Tensor:
    """Sink logit of every query, [batch, heads, rows, 1]."""
    each = sinks[:, :, rows] if sinks.dim() == 4 else sinks.view(1, -1, 1, 1)
    return each.float().expand(*logits.shape[:3], 1)


def _additive_mask(call: AttentionCall, rows: slice, logits: Tensor) -> Tensor:
    lowest = torch.finfo(torch.float32).min
    if call.mask is not None and call.mask.dtype != torch.bool:
        return call.mask[:, :, rows].float()
    if call.mask is not None:
        seen = call.mask[:, :, rows]
    else:
        column = torch.arange(logits.shape[3], device=logits.device)
        seen = column <= _query_columns(call, rows)[:, None]
    return torch.zeros(seen.shape, device=logits.device).masked_fill(~seen, lowest)
