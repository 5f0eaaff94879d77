"""How each layer of a model rotates its queries and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvbudget.heuristics import Rotation

from .anatomy import layout_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Kinds whose frequencies change with the length of the text."""

ROTATES_HALVES = frozenset(
    "GPT2 GPTNeoX Gemma2 Gemma3 GptOss Llama Mistral Mixtral OPT Phi3 Qwen2 Qwen3".split()
)
"""Models that are proved to rotate the two halves of a key against each other, by their names."""


def layer_rotations(model: PreTrainedModel) -> tuple[Rotation | None, ...]:
    """Read how a model rotates queries and keys by position.

    None stands for a layer without rotation, for one whose frequencies change with the length of
    the text, so that no single rotation undoes what is in the cache, and for every layer of a
    model that is not in ``ROTATES_HALVES``: some rotate neighbouring numbers, which `Rotation`
    does not.

    Returns:
        One rotation for each layer that keeps keys and values; layers that rotate alike share one.
    """
    numbers = [each.number for each in layout_of(model).cached]
    name = type(model).__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    rotary = dict(model.base_model.named_children()).get("rotary_emb")
    if rotary is None or name not in ROTATES_HALVES:
        return (None,) * len(numbers)
    rope_type: object = rotary.rope_type
    if isinstance(rope_type, dict):  # by kind of layer
        by_kind = {kind: _rotation(rotary, each, f"{kind}_") for kind, each in rope_type.items()}
        kinds = model.config.get_text_config(decoder=True).layer_types
        return tuple(by_kind.get(kinds[number]) for number in numbers)
    return (_rotation(rotary, str(rope_type), ""),) * len(numbers)


def _rotation(rotary: nn.Module, rope_type: str, prefix: str) -> Rotation | None:
    """One rotation of a rotary module; ``prefix`` is how its names begin."""
    if any(kind in rope_type for kind in LENGTH_DEPENDENT):
        return None
    frequencies = rotary.get_buffer(f"{prefix}inv_freq").detach().float()
    return Rotation(frequencies, float(getattr(rotary, f"{prefix}attention_scaling")))
