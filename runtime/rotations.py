"""How each layer of a model rotates its queries and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbudget.heuristics import Rotation

from .families import FAMILIES

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Kinds whose frequencies change with the length of the text."""


def layer_rotations(model: PreTrainedModel) -> tuple[Rotation | None, ...]:
    """Read how a model rotates queries and keys by position.

    None stands for a layer without rotation, for one whose frequencies change with the length of
    the text, so that no single rotation undoes what is in the cache, and for every layer of a
    family that is not in ``FAMILIES``: some rotate neighbouring numbers, which `Rotation` does
    not. No family listed there does.

    Returns:
        One rotation per layer; layers that rotate alike share one.
    """
    config = model.config.get_text_config(decoder=True)
    layers: int = config.num_hidden_layers
    rotary = dict(model.base_model.named_children()).get("rotary_emb")
    if rotary is None or type(model).__name__ not in FAMILIES:
        return (None,) * layers
    rope_type: object = rotary.rope_type
    if isinstance(rope_type, dict):  # by kind of layer
        by_kind = {kind: _rotation(rotary, each, f"{kind}_") for kind, each in rope_type.items()}
        return tuple(by_kind.get(kind) for kind in config.layer_types)
    return (_rotation(rotary, str(rope_type), ""),) * layers


def _rotation(rotary: nn.Module, rope_type: str, prefix: str) -> Rotation | None:
    """One rotation of a rotary module; ``prefix`` is how its names begin."""
    if any(kind in rope_type for kind in LENGTH_DEPENDENT):
        return None
    frequencies = rotary.get_buffer(f"{prefix}inv_freq").detach().float()
    return Rotation(frequencies, float(getattr(rotary, f"{prefix}attention_scaling")))
