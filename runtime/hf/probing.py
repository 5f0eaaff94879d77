"""Watch how a model's layers use a cache while it reads two tokens."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from kvbudget.allocator import UnsupportedModel

from ..attention_call import AttentionCall
from ..cached_layer import CachedLayer
from .attention import ordinary_attention
from .handoff import TaggingLayer, refuse_stranded
from .layout import Layout
from .states import StateKeeper
from .switching import attention_switched

_PROBE_TOKENS = 2
# what models raise that insist on a cache class of their own or on other inputs than text
_REFUSALS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass(slots=True)
class Sighting:
    """What one layer did with its cache.

    Args:
        cached: The layer.
        keys: Keys that it stored, [1, kv_heads, tokens, head_dim]; None if it stored none.
        values: Values that it stored, [1, kv_heads, tokens, value_dim].
        call: Its attention call, the last if there are several.
        calls: How many there are, those of other modules that read its keys and values included.
        readers: How many other attentions read the same keys and values after it.
        is_rewritten: Whether the attention got other keys or values than were stored.
    """

    cached: CachedLayer
    keys: Tensor | None = None
    values: Tensor | None = None
    call: AttentionCall | None = None
    calls: int = 0
    readers: int = 0
    is_rewritten: bool = False

    @property
    def known(self) -> CachedLayer:
        """The layer, with what was seen of it."""
        assert self.call is not None, "a layer that was seen has attended"
        return replace(
            self.cached,
            readers=self.readers,
            is_rewritten=self.is_rewritten,
            has_own_logits=self.call.has_own_logits,
            calls=self.calls,
        )


class _ProbingLayer(TaggingLayer):
    """Keeps nothing, and notes what comes by."""

    def __init__(self, cached: CachedLayer, stranding: str) -> None:
        TaggingLayer.__init__(self, cached)
        self.stranding = stranding
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
        self.sighting.calls += 1
        return ordinary_attention(call)

    def attend_again(self, call: AttentionCall) -> Tensor:
        """Note who reads."""
        self.sighting.readers += 1
        self.sighting.calls += 1
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

    def __init__(self, cached: CachedLayer, stranding: str) -> None:
        StateKeeper.__init__(self, number_of_states=cached.states)
        _ProbingLayer.__init__(self, cached, stranding)


def probe(model: PreTrainedModel, device: torch.device) -> tuple[Layout, list[Sighting]]:
    """Let the model read two tokens, and see what becomes of their keys and values.

    Args:
        model: A causal LM in evaluation mode.
        device: Where it wants its token ids.

    Returns:
        The layers that store keys and values when text is read, and one sighting for each.

    Raises:
        UnsupportedModel: A layer does something that cannot be cut exactly; says which and what.
    """
    try:
        layout = Layout(model.config.get_text_config(decoder=True))
        seen = _read(model, layout, device)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{type(model).__name__} is not supported. {error}") from error
    except torch.OutOfMemoryError:
        raise
    except _REFUSALS as error:
        raise UnsupportedModel(
            f"{type(model).__name__} is not supported. It cannot read two tokens of text with a "
            f"cache that is not its own: {error}"
        ) from error
    layout = layout.only([each.known for each in seen])
    pairs = zip(seen, layout.cached, strict=True)
    return layout, [replace(each, cached=cached) for each, cached in pairs]


def _read(model: PreTrainedModel, layout: Layout, device: torch.device) -> list[Sighting]:
    reason = _on_its_own(model)
    layers = layout.layers(lambda cached: _probing(cached, reason))
    ids = torch.ones(1, _PROBE_TOKENS, dtype=torch.long, device=device)
    # what is compiled does not show the tensors that it hands on
    eagerly = torch.compiler.set_stance("force_eager")
    with eagerly, torch.inference_mode(False), torch.no_grad(), attention_switched(model):
        model(input_ids=ids, past_key_values=Cache(layers), use_cache=True)
        refuse_stranded(reason)
    sightings = [each.sighting for each in layers if isinstance(each, _ProbingLayer)]
    seen = [each for each in sightings if each.call is not None]
    if not seen:
        raise UnsupportedModel("It keeps no keys and values in the cache that it is given.")
    return seen


def _probing(cached: CachedLayer, stranding: str) -> _ProbingLayer:
    kind = _ProbingStates if cached.states else _ProbingLayer
    return kind(cached, stranding)


def _on_its_own(model: PreTrainedModel) -> str:
    """Why keys that a model stored never reached our attention."""
    attentions = [each for each in model.named_modules() if "Attention" in type(each[1]).__name__]
    path, module = attentions[-1] if attentions else ("", model)
    return (
        f"{path or 'It'} ({type(module).__name__}) computes its attention itself, without the "
        f"attention interface of transformers, and kvbudget has no adapter for it."
    )
