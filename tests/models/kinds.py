"""What the layers of a model have, as its own run under transformers shows."""

from __future__ import annotations

from typing import Any

import torch
from own_attention import KeepingCache, Stored, attention_read, own_layers
from transformers import PreTrainedModel

WORDS = {
    "DynamicLayer": ("full",),
    "DynamicSlidingWindowLayer": ("sliding",),
    "LinearAttentionLayer": ("states",),
    "LinearAttentionAndFullAttentionLayer": ("full", "states"),
    "LinearAttentionAndSlidingWindowAttentionLayer": ("sliding", "states"),
    "DummyLayer": (),
}
LOGITS = {"s_aux": "sinks", "sinks": "sinks", "softcap": "softcap", "position_bias": "bias"}


def kinds_of(model: PreTrainedModel) -> tuple[str, ...]:
    """A few words on the caches of a model and on its attention; none if it reads no text."""
    try:
        stored = _stored(model)
    except Exception:  # as many kinds as there are models that want other inputs
        return ()
    calls = [call for each in stored for call in each.calls]
    words = [*_layer_words(model, {each.layer for each in stored}), *_reading_words(stored)]
    words += [LOGITS[key] for _, given in calls for key in LOGITS if given.get(key) is not None]
    if stored and not calls:
        words.append("attention of its own")
    return tuple(dict.fromkeys(words))


def reads_text(model: PreTrainedModel) -> bool:
    """Whether the model reads plain text, with a cache that is given to it."""
    try:
        _stored(model)
    except Exception:
        return False
    return True


def stores_keys(model: PreTrainedModel) -> bool:
    """Whether a model that reads text stores keys and values in a cache that is given to it."""
    return bool(_stored(model))


def sees_pictures(model: PreTrainedModel) -> bool:
    """Whether the model has a part for pictures."""
    return "vision_config" in model.config.sub_configs


def _stored(model: PreTrainedModel) -> list[Stored]:
    cache = KeepingCache(model)
    ids = torch.ones(1, 2, dtype=torch.long)
    with attention_read(model, cache), torch.inference_mode():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache.stored


def _layer_words(model: PreTrainedModel, storing: set[int]) -> list[str]:
    config: Any = model.config.get_text_config(decoder=True)
    types = getattr(config, "layer_types", None) or []
    words: list[str] = []
    for number, layer in enumerate(own_layers(model)):
        has = WORDS.get(type(layer).__name__, ("special",))
        if types[number : number + 1] == ["chunked_attention"]:
            has = ("chunked",)
        words += [each for each in has if number in storing or each == "states"]
    return words


def _reading_words(stored: list[Stored]) -> list[str]:
    words = []
    if any(each.is_rewritten for each in stored):
        words.append("rewritten")
    if any(len({id(module) for module, _ in each.calls}) > 1 for each in stored):
        words.append("shared")
    if len({(each.keys.shape, each.values.shape) for each in stored}) > 1:
        words.append("unequal layers")
    return words
