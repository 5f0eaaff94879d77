"""Convolution and recurrent states of a cache, as named tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

_KINDS = ("conv", "recurrent")


def state_tensors(layers: Sequence[object]) -> dict[str, Tensor]:
    """The states of all layers that keep any."""
    found: dict[str, Tensor] = {}
    for number, layer in enumerate(layers):
        if isinstance(layer, LinearAttentionLayer):
            for at in range(layer.number_of_states):
                found |= _named(layer, number, at)
    return found


def check_states(layers: Sequence[object], tensors: Mapping[str, Tensor]) -> None:
    """Refuse states that belong to no layer.

    Raises:
        ValueError: Completes "the cache is not usable: ...".
    """
    known = {
        f"states.{number}.{at}.{part}"
        for number, layer in enumerate(layers)
        if isinstance(layer, LinearAttentionLayer)
        for at in range(layer.number_of_states)
        for part in (*_KINDS, "counts")
    }
    for name in tensors:
        if name.startswith("states.") and name not in known:
            raise ValueError(f"the tensor `{name}` belongs to no layer of the model")


def restore_states(
    layers: Sequence[object],
    tensors: Mapping[str, Tensor],
    devices: Sequence[torch.device | None],
) -> None:
    """Put the states back into fresh layers.

    Args:
        layers: All layers of the cache.
        tensors: What `state_tensors` told.
        devices: Where each layer computes, [layers]; None leaves its tensors where they are.
    """
    for number, layer in enumerate(layers):
        if isinstance(layer, LinearAttentionLayer):
            for at in range(layer.number_of_states):
                _restore(layer, f"states.{number}.{at}.", at, tensors, devices[number])


def _named(layer: LinearAttentionLayer, number: int, at: int) -> dict[str, Tensor]:
    states = (layer.conv_states[at], layer.recurrent_states[at])
    prefix = f"states.{number}.{at}."
    found = {
        prefix + kind: state
        for kind, state in zip(_KINDS, states, strict=True)
        if state is not None
    }
    if found:
        kernel = layer.conv_kernel_size[at] or 0
        found[prefix + "counts"] = torch.tensor([kernel, int(layer.has_previous_state[at])])
    return found


def _restore(
    layer: LinearAttentionLayer,
    prefix: str,
    at: int,
    tensors: Mapping[str, Tensor],
    device: torch.device | None,
) -> None:
    if prefix + "counts" not in tensors:
        return
    kernel, has_previous = tensors[prefix + "counts"].tolist()
    conv, recurrent = tensors.get(prefix + "conv"), tensors.get(prefix + "recurrent")
    if conv is not None:
        conv = conv.to(device or conv.device, copy=True)
        layer.lazy_initialization(conv_states=conv, state_idx=at, conv_kernel_size=kernel)
        layer.conv_states[at] = conv
    if recurrent is not None:
        recurrent = recurrent.to(device or recurrent.device, copy=True)
        layer.lazy_initialization(recurrent_states=recurrent, state_idx=at)
        layer.recurrent_states[at] = recurrent
    layer.has_previous_state[at] = bool(has_previous)
