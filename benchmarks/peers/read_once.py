"""What does not depend on the press, or on the share, is done once: the same figures sooner.

Most presses act in a hook behind each layer's attention, when the layer has been computed: the
forward of a context is the same for all of them. It is run once, and each press' own hooks are
called on what it gave. KVzip and KVgrad score a context whatever share is asked for: that is done
once too. Times and peaks are measured without any of this.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import kvpress as kp
import torch
from torch import Tensor
from transformers import DynamicCache


@dataclass(slots=True)
class Recorded:
    """One forward of a context.

    Args:
        calls: For each layer its attention module, what it was given, and its attention weights.
        keys_values: Keys and values of each layer.
    """

    calls: list[tuple[Any, dict[str, Any], Tensor | None]]
    keys_values: list[tuple[Tensor, Tensor]]

    def cache(self) -> DynamicCache:
        """A cache of copies, as the forward has left it."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.keys_values):
            cache.update(keys.clone(), values.clone(), layer)
        return cache


@dataclass(slots=True)
class Recorder:
    """Remembers the forward of the last context for each model."""

    known: dict[int, tuple[Tensor, Recorded]] = field(default_factory=dict)

    def compressed(self, model: Any, context: Tensor, press: Any) -> DynamicCache:
        """The cache that a press leaves behind."""
        recorded = self._of(model, context)
        press.post_init_from_model(model)
        cache = recorded.cache()
        for module, given, weights in recorded.calls:
            module.rotary_emb = model.model.rotary_emb
            press.forward_hook(module, [], {**given, "past_key_values": cache}, [None, weights])
        return cache

    def _of(self, model: Any, context: Tensor) -> Recorded:
        found = self.known.get(id(model))
        if found is None or not torch.equal(found[0], context):
            self.known[id(model)] = found = (context, record(model, context))
        return found[1]


def record(model: Any, context: Tensor) -> Recorded:
    """Run the forward and keep what the hooks of a press would be given."""
    calls: list[tuple[Any, dict[str, Any], Tensor | None]] = []

    def hear(module: Any, _: Any, given: dict[str, Any], output: Any) -> None:
        calls.append((module, given, output[1]))

    hooks = [
        layer.self_attn.register_forward_hook(hear, with_kwargs=True)
        for layer in model.model.layers
    ]
    cache = DynamicCache()
    model.model(input_ids=context, past_key_values=cache)
    for hook in hooks:
        hook.remove()
    return Recorded(calls, [(layer.keys, layer.values) for layer in cache.layers])


def only_hooks(press: Any) -> bool:
    """Whether a press does nothing but act behind each layer."""
    return type(press).__call__ is kp.BasePress.__call__


class ScoresKept:
    """Makes a KVzip-like press score the same context once."""

    last: ClassVar[tuple[Any, Tensor, Tensor] | None] = None

    def _perform_kvzip_compression(self, model: Any, tokenizer: Any) -> None:
        about, last = (type(self), self.kvzip_plus_normalization), ScoresKept.last
        if last and last[0] == about and torch.equal(last[1], self._context_ids):
            self.score_val = last[2].clone()
            self.compress_post(model)
        else:
            super()._perform_kvzip_compression(model, tokenizer)
            ScoresKept.last = (about, self._context_ids, self.score_val.clone())


class KVzipOnce(ScoresKept, kp.KVzipPress):
    """KVzip, scoring a context once."""


class KVgradOnce(ScoresKept, kp.KVgradPress):
    """KVgrad, scoring a context once."""


def scoring_once(press: Any) -> Any:
    """The same press, of a kind that scores a context once where there is one."""
    if type(press) is kp.KVzipPress:
        plus = press.kvzip_plus_normalization
        return KVzipOnce(press.compression_ratio, kvzip_plus_normalization=plus)
    if type(press) is kp.KVgradPress:
        return KVgradOnce(press.compression_ratio)
    return press
