"""How a cache layer's new tokens find their attention call.

A cache layer's `update` sees keys and values but no queries; the attention function sees queries,
keys and values but not the cache. The two are joined by a handoff: `update` returns the new
tensors tagged with their layer, and the registered attention function recognises the tag. A model
that rewrites keys or values in between, or never calls the registered function, is found out at
its first forward.
"""

import threading
from abc import abstractmethod
from enum import Enum, auto
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin

from kvbudget.allocator import UnsupportedModel

from ..attention_call import AttentionCall
from ..cached_layer import CachedLayer

_TAG = "_kvbudget_layer"
_NEVER_REACHED = "its keys never reached the attention function of kvbudget."
NOT_IN_GRAPHS = (
    "kvbudget compiles layers that keep keys and values as they are; layers that rewrite them, "
    "keep states, are read by others or bias each logit go on outside of graphs, with the same "
    "results. After the end of its `with budgeted(...)` a cache goes on nowhere."
)


class TaggingLayer(CacheLayerMixin):
    """A cache layer that hands its new tokens to the registered attention function.

    Args:
        cached: The layer of the model.
    """

    is_sliding = False  # masks are sized by all columns seen, whatever is kept
    is_compileable = False
    is_croppable = True
    stranding = "Use the cache inside `with budgeted(...)`, on its own model."

    def __init__(self, cached: CachedLayer) -> None:
        CacheLayerMixin.__init__(self)
        self.index, self.number, self.window = cached.index, cached.number, cached.window

    @abstractmethod
    def admit(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take note of new tokens before they attend, and return what the model gets to see."""

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor:
        """Attention output, [batch, new, heads, value_dim]."""

    def attend_again(self, call: AttentionCall) -> Tensor:
        """The same for another layer of the model that reads this one's keys and values."""
        raise UnsupportedModel(
            f"{type(call.module).__name__}: it reads the keys and values of layer {self.number}, "
            f"which kvbudget does not know how to share."
        )

    def attend_rewritten(self, call: AttentionCall) -> Tensor:
        """The same if keys or values were rewritten between the cache and the attention."""
        raise UnsupportedModel(
            f"{type(call.module).__name__}, layer {self.number}: keys or values are rewritten "
            f"between the cache and the attention, so they cannot be cut per KV head."
        )

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Remember type and place of the tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        if self.keys is None:
            # some models ask a layer how many keys it has: none that they could use
            self.keys = self.values = key_states.new_empty(0)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Admit new tokens and return them, tagged, for the attention call that follows."""
        self.lazy_initialization(key_states, value_states)
        refuse_stranded(self.stranding)
        # a model may pass one object as both: each needs a tag of its own
        values = value_states.clone() if value_states is key_states else value_states
        shown = self.admit(key_states, values)
        for tensor in shown:
            setattr(tensor, _TAG, self)
        _HANDOFF.waiting = self
        return shown

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns and offset of the mask: all columns seen, kept or not."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit on the columns."""
        return -1


class TracedCache(Protocol):
    """A cache that takes part in graphs."""

    def update_now(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int
    ) -> tuple[Tensor, Tensor]:
        """Take note of new tokens of one layer, outside of graphs."""

    def traced_layer(self, number: int) -> tuple[TaggingLayer, int]:
        """A layer of the model, and the number by which graphs find the cache."""


_Left = tuple[TracedCache, int, Tensor]


class _Handoff(threading.local):
    """The layer whose `update` has not been followed by its attention call yet."""

    waiting: TaggingLayer | None = None
    traced: _Left | None = None  # the same in a step that is held open: cache, layer and keys


class _InGraph:
    """The same while a graph is made; a compiler forgets what is a thread's own at a break."""

    left: _Left | None = None


_HANDOFF = _Handoff()
_IN_GRAPH = _InGraph()


class Arrival(Enum):
    """How keys and values came from the cache to an attention call."""

    UNTOUCHED = auto()
    """They are the very tensors that the layer handed out."""
    AGAIN = auto()
    """They are, but another attention has had them before."""
    REWRITTEN = auto()
    """The layer handed out others, which the model changed."""


def clear_handoff() -> None:
    """Forget a layer that waits, after a forward that broke off."""
    _HANDOFF.waiting = _HANDOFF.traced = _IN_GRAPH.left = None


def hand_over(cache: TracedCache, number: int, keys: Tensor) -> None:
    """Leave the new tokens of a layer to the attention call that follows in the same graph."""
    if not torch.compiler.is_compiling():
        _HANDOFF.traced = (cache, number, keys)
        return
    if _IN_GRAPH.left is not None:
        _refuse_traced(_IN_GRAPH.left[1])
    _IN_GRAPH.left = (cache, number, keys)


@torch.compiler.disable(reason=_NEVER_REACHED)  # type: ignore[untyped-decorator]
def _refuse_traced(number: int) -> None:
    _IN_GRAPH.left = None
    raise UnsupportedModel(f"Layer {number}: {_NEVER_REACHED} {TaggingLayer.stranding}")


def take_traced(keys: Tensor) -> tuple[TracedCache, int] | None:
    """The cache and the layer of which new tokens were left to this attention call, if any."""
    left = _IN_GRAPH.left
    if left is not None and (torch.compiler.is_compiling() or left[2] is keys):
        _IN_GRAPH.left = None
        return left[:2]
    left = _HANDOFF.traced
    if left is not None and left[2] is keys:
        if not torch.compiler.is_compiling():
            _HANDOFF.traced = None
        return left[:2]
    return None


def refuse_stranded(remedy: str = "") -> None:
    """Raise if a layer's tokens never reached the attention function.

    Raises:
        UnsupportedModel: Names the layer.
    """
    stranded, _HANDOFF.waiting = _HANDOFF.waiting, None
    if stranded is not None:
        raise UnsupportedModel(f"Layer {stranded.number}: {_NEVER_REACHED} {remedy}".rstrip())


def take_over(module: nn.Module, key: Tensor, value: Tensor) -> tuple[TaggingLayer, Arrival] | None:
    """Find the layer whose tokens an attention call got.

    Returns:
        The layer, and how its tokens came; None if none of ours handed anything out.

    Raises:
        UnsupportedModel: Keys and values belong to different layers.
    """
    waiting, _HANDOFF.waiting = _HANDOFF.waiting, None
    key_layer: TaggingLayer | None = getattr(key, _TAG, None)
    value_layer: TaggingLayer | None = getattr(value, _TAG, None)
    if waiting is None and key_layer is None and value_layer is None:
        return None
    if waiting is None:
        return _reader(key_layer, value_layer)
    if key_layer is waiting and value_layer is waiting:
        return waiting, Arrival.UNTOUCHED
    if key_layer in (None, waiting) and value_layer in (None, waiting):
        return waiting, Arrival.REWRITTEN
    raise UnsupportedModel(
        f"{type(module).__name__}: its keys and values come from different layers of the cache."
    )


def _reader(
    key_layer: TaggingLayer | None, value_layer: TaggingLayer | None
) -> tuple[TaggingLayer, Arrival]:
    """A call whose tokens have attended before: of another layer, or in another part."""
    if key_layer is not None and key_layer is value_layer:
        return key_layer, Arrival.AGAIN
    layer = value_layer if key_layer is None else key_layer
    assert layer is not None, "one of the two is tagged"
    return layer, Arrival.REWRITTEN
