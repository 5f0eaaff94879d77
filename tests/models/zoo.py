"""A tiny random model of every causal language model class of transformers.

The default configuration of a class is shrunk by the names of its fields (`SMALL`); what that
cannot know stands in `zoo_fields.EXCEPTIONS`, per configuration class.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from zoo_fields import DECODER_OF, EXCEPTIONS, SMALL, TOWER_OF, WITH_PICTURES
from zoo_fields import LAYERS as LAYER_FIELDS

LAYERS = 4
UNSCALED = ("gemma3n", "gemma4")  # their logits are not divided by the root of the dimension
QUERY = re.compile(r"\b((q|q_b|query)(_proj|_attn|_lin)?|wq)\.")
FUSED = re.compile(r"\b(qkv(_proj)?|Wqkv|c_attn|query_key_value)\.")
QUERY_KEY_NORM = re.compile(r"\b(q|k|query|key|qk)_?(layer)?_?norm")


def class_names() -> list[str]:
    """Every class the zoo knows, sorted: the causal language models, and some that see pictures."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(), *WITH_PICTURES})


def build(name: str) -> PreTrainedModel:
    """A random model in float32, in evaluation mode; the same weights every time."""
    model_class = getattr(transformers, name)
    config_class = model_class.config_class
    if name in DECODER_OF:
        config_class = getattr(transformers, DECODER_OF[name])
    config = shrink(config_class, {})
    if name in TOWER_OF:
        # past the check of the field's type: the tower sees nothing, whatever it is
        vars(config)["vision_config"] = shrink(getattr(transformers, TOWER_OF[name]), {})
    torch.manual_seed(_seed(name))
    model = model_class._from_config(config, attn_implementation="eager")
    _draw_weights(model)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
    return model.eval()


def shrink(config_class: type[PreTrainedConfig], more: dict[str, Any]) -> PreTrainedConfig:
    """The default configuration made tiny, its parts with it."""
    given = {**EXCEPTIONS.get(config_class.__name__, {}), **more}
    try:
        default = vars(config_class())
    except Exception:  # some have no valid default
        default = {}
    layer_counts = {default[key] for key in LAYER_FIELDS if key in default}
    small: dict[str, Any] = {}
    for key, value in default.items():
        if isinstance(value, PreTrainedConfig):
            small[key] = shrink(type(value), given.get(key, {}))
        elif key in SMALL:
            small[key] = SMALL[key]
        elif isinstance(value, list) and len(value) in layer_counts:
            small[key] = _one_of_each(value)
    small.update(
        {key: given[key] for key in given if not isinstance(small.get(key), PreTrainedConfig)}
    )
    return config_class(**{key: value for key, value in small.items() if value is not ...})


def _one_of_each(per_layer: list[Any]) -> list[Any]:
    kinds = list({str(value): value for value in per_layer}.values())
    return (kinds * LAYERS)[: max(LAYERS, len(kinds))]


def _draw_weights(model: PreTrainedModel) -> None:
    """Weights whose attention is far from uniform, so that eviction shows."""
    sharp_already = getattr(model.config.get_text_config(), "model_type", "").startswith(UNSCALED)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            generator = torch.Generator().manual_seed(_seed(name))
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.dim() >= 2:
                parameter.copy_(noise * _spread(name))
            elif "sink" in name:
                parameter.copy_(noise)
            elif QUERY_KEY_NORM.search(name) and not sharp_already:
                parameter.add_(1 + 0.1 * noise)
            else:
                parameter.add_(0.1 * noise)


def _spread(name: str) -> float:
    if "embed" in name:
        return 0.25
    if FUSED.search(name):
        return 0.2
    return 0.35 if QUERY.search(name) else 0.15


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
