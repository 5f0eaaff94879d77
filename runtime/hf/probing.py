"""Watch how a model's layers use a cache while it reads two tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from kvbudget.allocator import UnsupportedModel

from ..attention_call import AttentionCall
from .attention import ordinary_attention
from .handoff import TaggingLayer, refuse_stranded
from .layout import CachedLayer, text_layout
from .states import StateKeeper
from .switching import attention_switched

_PROBE_TOKENS = 2


@dataclass(slots=True)
class Sighting:
    """What one layer did with its cache.

    Args:
        cached: The layer.
        keys: Keys that it stored, [1, kv_heads, tokens, head_dim]; None if it stored none.
        values: Values that it stored, [1, kv_heads, tokens, value_dim].
        call: Its attention call.
        readers: Attention modules that read the same keys and values after it.
        is_rewritten: Whether the attention got other keys or values than were stored.
    """

    cached: CachedLayer
    keys: Tensor | None = None
    values: Tensor | None = None
    call: AttentionCall | None = None
    readers: tuple[nn.Module, ...] = ()
    is_rewritten: bool = False


class _ProbingLayer(TaggingLayer):
    """Keeps nothing, and notes what comes by."""

    def __init__(self, cached: CachedLayer) -> None:
        TaggingLayer.__init__(self, cached)
        self.sighting = Sighting(cached)

    def admit(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Note their shapes."""
        if self.sighting.keys is not None:
            raise UnsupportedModel(
                f"Layer {self.number} stores keys and values twice in one forward, which kvbudget "
                f"cannot tell apart."
            )
        self.sighting.keys, self.sighting.values = keys, values
        return keys, values

    def attend(self, call: AttentionCall) -> Tensor:
        """Note the call."""
        self.sighting.call = call
        return ordinary_attention(call)

    def attend_again(self, call: AttentionCall) -> Tensor:
        """Note who reads."""
        self.sighting.readers = (*self.sighting.readers, call.module)
        return ordinary_attention(call)

    def attend_rewritten(self, call: AttentionCall) -> Tensor:
        """Note that they came changed."""
        self.sighting.is_rewritten = True
        return self.attend(call)

    def get_seq_length(self) -> int:
        """Nothing was read before."""
        return 0


class _ProbingStates(StateKeeper, _ProbingLayer):  # type: ignore[misc, override]
    """One of a layer that keeps states as well."""

    def __init__(self, cached: CachedLayer) -> None:
        StateKeeper.__init__(self, number_of_states=cached.states)
        _ProbingLayer.__init__(self, cached)


def probe(model: PreTrainedModel, device: torch.device) -> list[Sighting]:
    """Let the model read two tokens, and see what becomes of their keys and values.

    Args:
        model: A causal LM in evaluation mode.
        device: Where it wants its token ids.

    Returns:
        One for each layer that stores keys and values, in the order of the model.

    Raises:
        UnsupportedModel: A layer does something that cannot be cut exactly; says which and what.
    """
    ids = torch.ones(1, _PROBE_TOKENS, dtype=torch.long, device=device)
    try:
        layers = text_layout(model).layers(_probing)
        with torch.inference_mode(False), torch.no_grad(), attention_switched(model):
            model(input_ids=ids, past_key_values=Cache(layers), use_cache=True)
            refuse_stranded()
        return _seen([each.sighting for each in layers if isinstance(each, _ProbingLayer)])
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{type(model).__name__} is not supported. {error}") from error


def _probing(cached: CachedLayer) -> _ProbingLayer:
    return _ProbingStates(cached) if cached.states else _ProbingLayer(cached)


def _seen(sightings: list[Sighting]) -> list[Sighting]:
    """All sightings, if every layer used its cache."""
    for each in sightings:
        if each.call is None:
            raise UnsupportedModel(
                f"Layer {each.cached.number} does not use the cache that it is given."
            )
    return sightings
