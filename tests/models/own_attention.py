"""The oracle: transformers' own attention over a cache that keeps everything.

Each softmax of a layer's attention gets the columns hidden that its KV heads hold no longer. All
else, such as windows, chunks, sinks, caps and biases, is the code of transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedModel,
)
from transformers.cache_utils import (
    Cache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
from transformers.masking_utils import eager_mask

NAME = "eager_over_everything"
OVER_COLUMNS = (
    torch.softmax,
    nn.functional.softmax,
    Tensor.softmax,
    torch.logsumexp,  # some apply their sinks to it, besides the softmax
    Tensor.logsumexp,
)
Held = dict[int, list[list[Tensor]]]  # layer of the model: columns, [row][kv_head]


@dataclass
class Stored:
    """Keys and values of one layer, with those who read them.

    Attributes:
        layer: Number of the layer in the model's cache.
        calls: Attention module and keywords of each call that reads them.
        is_rewritten: Whether such a call got other keys or values.
    """

    layer: int
    keys: Tensor
    values: Tensor
    calls: list[tuple[nn.Module, dict[str, Any]]]
    is_rewritten: bool = False


class KeepingCache(Cache):
    """Keeps all columns, those outside a sliding window too, and notes what was stored.

    Attributes:
        stored: What the forward under way has stored so far.
        reading: The layer that attends next.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(layers=[_keeping(each) for each in own_layers(model)])
        self.stored: list[Stored] = []
        self.reading: int | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        self.stored.append(Stored(layer_idx, keys, values, []))
        self.reading = layer_idx
        return keys, values

    @property
    def columns(self) -> int:
        """Columns of the layer that attends next."""
        return next(each for each in self.stored if each.layer == self.reading).keys.shape[2]

    def begin(self) -> None:
        """Forget what the last forward has stored."""
        self.stored, self.reading = [], None

    def read(self, module: nn.Module, key: Tensor, value: Tensor, keywords: dict[str, Any]) -> None:
        """Note an attention call, if its keys come from here."""
        found = [each for each in self.stored if each.keys is key or each.values is value]
        found = found or self.stored
        if found:
            source = found[-1]
            source.calls.append((module, keywords))
            source.is_rewritten |= source.keys is not key or source.values is not value
            self.reading = source.layer


def own_layers(model: PreTrainedModel) -> list[Any]:
    """The layers of the cache that transformers makes for the model."""
    return DynamicCache(config=model.config.get_text_config(decoder=True)).layers


def _keeping(layer: Any) -> Any:
    if type(layer) is DynamicSlidingWindowLayer:
        return DynamicLayer()
    if type(layer) is LinearAttentionAndSlidingWindowAttentionLayer:
        return LinearAttentionAndFullAttentionLayer(number_of_states=layer.number_of_states)
    return layer


class Hiding(TorchFunctionMode):
    """Hides columns from all that is summed up over the columns of the layer that attends.

    Args:
        cache: Knows which layer that is.
        held: What it holds besides the new columns; layers that are not named hold everything.
        new: Number of the newest columns, which are never hidden.
    """

    def __init__(self, cache: KeepingCache, held: Held, new: int) -> None:
        super().__init__()
        self.cache, self.held, self.new = cache, held, new

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in OVER_COLUMNS and self.cache.reading in self.held:
            first, *rest = args or [kwargs.pop("input")]
            args = (self._hidden(first), *rest)
        return function(*args, **kwargs)

    def _hidden(self, logits: Tensor) -> Tensor:
        held = self.held[self.cache.reading]
        columns = self.cache.columns
        extra = logits.shape[-1] - columns  # a sink takes one column more
        if logits.dim() < 3 or extra not in (0, 1):
            return logits
        by_head = logits.view(len(held), -1, *logits.shape[-2:])
        hidden = self._gone(held, by_head.shape[1], columns)
        lowest = torch.finfo(logits.dtype).min
        return by_head.masked_fill(nn.functional.pad(hidden, (0, extra)), lowest).view_as(logits)

    def _gone(self, held: list[list[Tensor]], heads: int, columns: int) -> Tensor:
        """[batch, heads, 1, columns]."""
        gone = torch.ones(len(held), heads, 1, columns, dtype=torch.bool)
        gone[..., columns - self.new :] = False
        for row, caches in enumerate(held):
            for head in range(heads):
                gone[row, head, :, caches[head * len(caches) // heads]] = False
        return gone


@contextmanager
def attention_read(model: PreTrainedModel, cache: KeepingCache) -> Iterator[None]:
    """Run the model's own attention, with the cache told of every call."""

    def attend(module, query, key, value, attention_mask, **keywords):
        cache.read(module, key, value, keywords)
        own = sys.modules[type(module).__module__].eager_attention_forward
        return own(module, query, key, value, attention_mask, **keywords)

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
