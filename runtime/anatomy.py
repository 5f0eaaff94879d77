"""What a model does with its KV caches, found out by letting it read two tokens once."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from kvbudget.allocator import UnsupportedModel

from .cached_layer import CachedLayer
from .devices import input_device
from .evaluating import evaluating
from .head_split import HeadSplit
from .hf import Layout, Sighting, probe
from .tensor_parallel import check_divisible, head_split


@dataclass(frozen=True, slots=True)
class LayerAnatomy:
    """One layer that keeps keys and values.

    Args:
        cached: Its place and what it can reach back to.
        path: Its attention module, as a path inside the model.
        heads: Query heads.
        kv_heads: KV heads that can be cut one by one: one, of all that are stored, where the model
            rewrites them.
        head_dim: Elements of one key in one of them.
        value_dim: Elements of one value in one of them.
        device: Where its keys and values are made.
    """

    cached: CachedLayer
    path: str
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    device: torch.device


@dataclass(frozen=True, slots=True)
class Anatomy:
    """All layers of a model that keep keys and values, in the order of the model.

    Args:
        layers: The layers.
        layout: The same layers among all those of transformers' own cache.
        dtype: Element type of keys and values.
        split: Which KV heads of the model are in this process; those are what the layers count.
    """

    layers: tuple[LayerAnatomy, ...]
    layout: Layout
    dtype: torch.dtype
    split: HeadSplit


Whereabouts = tuple[torch.dtype, tuple[torch.device, ...]]
_KNOWN: WeakKeyDictionary[PreTrainedModel, dict[Whereabouts, Anatomy]] = WeakKeyDictionary()


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """Find out how a model uses its caches; the first call lets it read two tokens.

    Raises:
        UnsupportedModel: Its caches cannot be cut exactly; says which and why.
        TypeError: It is no model of transformers, or is wrapped in something else.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"`model` must be a PreTrainedModel of transformers, but got a "
            f"{type(model).__name__}. Pass the model that it wraps or names."
        )
    known = _KNOWN.setdefault(model, {})
    # a model may be moved or cast after it has been looked at
    now = (model.dtype, tuple(parameter.device for parameter in model.parameters()))
    if now not in known:
        known[now] = _probed(model)
    return known[now]


def layout_of(model: PreTrainedModel) -> Layout:
    """The layers that keep keys and values among all those of the model's cache."""
    return anatomy_of(model).layout


def attention_modules(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Path and module of the attention of every layer that keeps keys and values, in order."""
    return [(each.path, model.get_submodule(each.path)) for each in anatomy_of(model).layers]


def _probed(model: PreTrainedModel) -> Anatomy:
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "use_bidirectional_attention", False) in (True, "all"):
        raise UnsupportedModel(
            f"{type(model).__name__} attends in both directions by its configuration "
            f"(use_bidirectional_attention), so a cache cannot serve it."
        )
    check_divisible(model)
    paths = {id(module): path for path, module in model.named_modules()}
    with evaluating(model):
        layout, seen = probe(model, input_device(model))
    first = seen[0].keys
    assert first is not None, "a layer that was seen has keys"
    layers = tuple(_layer(each, paths) for each in seen)
    return Anatomy(layers, layout, first.dtype, head_split(model, seen))


def _layer(seen: Sighting, paths: dict[int, str]) -> LayerAnatomy:
    assert seen.keys is not None
    assert seen.values is not None
    assert seen.call is not None
    stored, head_dim, value_dim = seen.keys.shape[1], seen.keys.shape[3], seen.values.shape[3]
    together = stored if seen.is_rewritten else 1
    return LayerAnatomy(
        cached=seen.cached,
        path=paths[id(seen.call.module)],
        heads=seen.call.queries.shape[1],
        kv_heads=stored // together,
        head_dim=head_dim * together,
        value_dim=value_dim * together,
        device=seen.keys.device,
    )
