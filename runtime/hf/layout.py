"""What kind of cache each layer of a model keeps, as transformers itself lays it out."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import (
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from kvbudget.allocator import UnsupportedModel

from ..cached_layer import CachedLayer

Told = TypeVar("Told")
_WITH_KEYS = (DynamicLayer, DynamicSlidingWindowLayer)
_WITH_BOTH = (
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
_WITHOUT_KEYS = (LinearAttentionLayer, DummyLayer)


class Layout:
    """The layers of a model's cache.

    Args:
        config: Configuration of the text model.

    Attributes:
        cached: Those that keep keys and values, in the order of the model.

    Raises:
        UnsupportedModel: A layer keeps something that cannot be cut exactly.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        self._config = config
        kinds = getattr(config, "layer_types", None) or []
        self.cached: list[CachedLayer] = []
        for number, layer in enumerate(self._own_layers()):
            if type(layer) in _WITHOUT_KEYS:
                continue
            if type(layer) not in (*_WITH_KEYS, *_WITH_BOTH):
                raise UnsupportedModel(
                    f"Layer {number} of {config.model_type} keeps a {type(layer).__name__}, "
                    f"which kvbudget cannot cut exactly."
                )
            window = getattr(layer, "sliding_window", None) or _own_window(config, number)
            chunked = window is not None and kinds[number : number + 1] == ["chunked_attention"]
            states = getattr(layer, "number_of_states", 0)
            self.cached.append(CachedLayer(len(self.cached), number, window, chunked, states))
        if not self.cached:
            raise UnsupportedModel(
                f"{config.model_type} keeps no keys and values, so there is nothing to cut."
            )

    def only(self, cached: Sequence[CachedLayer]) -> "Layout":
        """The same cache, of which only these layers are ours to keep."""
        layout = copy(self)
        layout.cached = [replace(each, index=index) for index, each in enumerate(cached)]
        return layout

    @property
    def keeps_states(self) -> bool:
        """Whether any layer keeps a state that every token changes."""
        own = self._own_layers()
        return any(isinstance(each, LinearAttentionLayer) for each in own)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Window of every layer that keeps keys and values, None for full attention."""
        return tuple(layer.window for layer in self.cached)

    def layers(self, make: Callable[[CachedLayer], CacheLayerMixin]) -> list[Any]:
        """A list of cache layers for the whole model.

        Args:
            make: Builds the layers that keep keys and values; the others are transformers' own.
        """
        layers: list[Any] = self._own_layers()
        for each in self.cached:
            layers[each.number] = make(each)
        return layers

    def spread(self, tell: Callable[[int], Told]) -> list[Told]:
        """For each layer of the model what is told of the nearest of ours, the last not after it.

        Args:
            tell: Tells something of a layer by its index.
        """
        told = [tell(0)] * len(self._own_layers())
        for cached in self.cached:
            told[cached.number :] = [tell(cached.index)] * (len(told) - cached.number)
        return told

    def _own_layers(self) -> list[Any]:
        layers: list[Any] = DynamicCache(config=self._config).layers
        return layers


def _own_window(config: PreTrainedConfig, number: int) -> int | None:
    """Window that a layer cuts by itself, of which its cache knows nothing."""
    if config.model_type == "gpt_neo" and config.attention_layers[number] == "local":
        return int(config.window_size)
    return None
