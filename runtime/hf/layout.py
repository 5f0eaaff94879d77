"""What kind of cache each layer of a model keeps, as transformers itself lays it out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
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

_WITH_KEYS = (DynamicLayer, DynamicSlidingWindowLayer)
_WITH_BOTH = (
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
_WITHOUT_KEYS = (LinearAttentionLayer, DummyLayer)


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """A layer of a model that keeps keys and values.

    Args:
        index: Place among the layers that do.
        number: Place among all layers of the model.
        window: Most tokens a query can reach back, its own included; None for all.
        is_chunked: Whether a query reaches back to the start of its chunk of `window` tokens.
        states: Convolution or recurrent states that the layer keeps besides, 0 for none.
    """

    index: int
    number: int
    window: int | None
    is_chunked: bool = False
    states: int = 0


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
            window = getattr(layer, "sliding_window", None)
            chunked = window is not None and kinds[number : number + 1] == ["chunked_attention"]
            states = getattr(layer, "number_of_states", 0)
            self.cached.append(CachedLayer(len(self.cached), number, window, chunked, states))
        if not self.cached:
            raise UnsupportedModel(
                f"{config.model_type} keeps no keys and values, so there is nothing to cut."
            )

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

    def _own_layers(self) -> list[Any]:
        layers: list[Any] = DynamicCache(config=self._config).layers
        return layers


def text_layout(model: PreTrainedModel) -> Layout:
    """The layout of a model's text part."""
    return Layout(model.config.get_text_config(decoder=True))
