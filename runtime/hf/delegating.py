"""A cache that keeps nothing and leaves all attention to a function."""

from collections.abc import Callable

from torch import Tensor
from transformers.cache_utils import Cache

from ..attention_call import AttentionCall
from ..cached_layer import CachedLayer
from .handoff import TaggingLayer
from .layout import Layout
from .states import StateKeeper

Attend = Callable[[int, AttentionCall], Tensor]


class DelegatingLayer(TaggingLayer):
    """Keeps nothing; leaves each attention call to a function, which returns the output."""

    def __init__(self, cached: CachedLayer, columns: int, attend: Attend) -> None:
        TaggingLayer.__init__(self, cached)
        self._columns, self._attend = columns, attend

    def admit(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing is kept."""
        return keys, values

    def attend(self, call: AttentionCall) -> Tensor:
        """Whatever the function makes of the call."""
        return self._attend(self.index, call)

    def attend_again(self, call: AttentionCall) -> Tensor:
        """The same."""
        return self._attend(self.index, call)

    def attend_rewritten(self, call: AttentionCall) -> Tensor:
        """The same, with the keys and values that the model made of those it stored."""
        return self._attend(self.index, call)

    def get_seq_length(self) -> int:
        """Columns that stand before every call."""
        return self._columns


class _WithStates(StateKeeper, DelegatingLayer):  # type: ignore[misc, override]
    """One of a layer that keeps states as well."""

    def __init__(self, cached: CachedLayer, columns: int, attend: Attend) -> None:
        StateKeeper.__init__(self, number_of_states=cached.states)
        DelegatingLayer.__init__(self, cached, columns, attend)


def delegating_cache(layout: Layout, attend: Attend, columns: int = 0) -> Cache:
    """A cache that keeps nothing and leaves the attention of every layer to `attend`.

    Args:
        layout: The layers of the model.
        attend: Gets the layer and its call, and returns [batch, new, heads, value_dim].
        columns: Tokens that count as read before; `attend` knows them.
    """

    def make(cached: CachedLayer) -> TaggingLayer:
        kind = _WithStates if cached.states else DelegatingLayer
        return kind(cached, columns, attend)

    return Cache(layout.layers(make))
