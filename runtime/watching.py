"""Run a model over a prompt once, and look at every layer as its attention is computed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvbudget.heuristics import LayerView, Rotation

from .anatomy import attention_modules, layout_of
from .attention_call import AttentionCall
from .devices import input_device
from .hf import (
    Attend,
    attention_switched,
    delegating_cache,
    ordinary_attention,
    refuse_stranded,
)
from .output_projection import output_weight
from .rotations import layer_rotations


@dataclass(frozen=True, slots=True)
class LayerSight:
    """One layer of one prompt, nothing evicted.

    Args:
        view: All tokens and all queries of the layer, a batch of one.
        residual: Residual stream that enters the layer, [1, tokens, hidden].
    """

    view: LayerView
    residual: Tensor


class _Residual:
    """The residual stream that entered the layer now running."""

    def __init__(self) -> None:
        self.latest: Tensor | None = None

    def remember(self, _: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Forward pre-hook: decoder layers get the stream first, or as `hidden_states`."""
        self.latest = inputs[0] if inputs else keywords["hidden_states"]


def watch_prompt(
    model: PreTrainedModel, tokens: list[int], look: Callable[[LayerSight], None]
) -> Tensor:
    """Run one forward pass over a prompt and show each layer to `look`, one after the other.

    Only the layer at hand is alive, so memory is that of a forward pass and one layer's caches.

    Returns:
        Norm of the residual stream behind the last layer, [tokens], float32.
    """
    windows = layout_of(model).windows
    rotations = layer_rotations(model)
    residual = _Residual()

    def observe(index: int, call: AttentionCall) -> Tensor:
        assert residual.latest is not None, "the layer's hook runs before its attention"
        weight = output_weight(call.module, call.queries.shape[1])
        view = _view(index, call, windows[index], rotations[index], weight)
        look(LayerSight(view, residual.latest))
        return ordinary_attention(call)

    with _hooked(model, residual):
        return _read(model, tokens, observe)


def final_residual_norm(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    """Norm of the residual stream behind the last layer, [tokens], float32; one forward pass."""
    return _read(model, tokens, lambda _, call: ordinary_attention(call))


def _read(model: PreTrainedModel, tokens: list[int], attend: Attend) -> Tensor:
    """Read a prompt in one forward pass and return the norm of the last layer's residual."""
    caught: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        residual = output[0] if isinstance(output, tuple) else output
        # a model with several streams works on the first
        caught.append(residual.flatten(0, -3)[0].float().norm(dim=-1))

    layout = layout_of(model)
    hook = decoder_layers(model)[-1].register_forward_hook(catch)
    try:
        # a model that loads its weights as it goes must not make them in inference mode
        with torch.inference_mode(False), torch.no_grad(), attention_switched(model):
            inputs = torch.tensor([tokens], device=input_device(model))
            cache = delegating_cache(layout, attend)
            model.base_model(input_ids=inputs, past_key_values=cache, use_cache=True)
            refuse_stranded()
    finally:
        hook.remove()
    return caught[0]


def _view(
    index: int,
    call: AttentionCall,
    window: int | None,
    rotation: Rotation | None,
    weight: Tensor,
) -> LayerView:
    kv_heads, columns = call.keys.shape[1:3]
    positions = torch.arange(columns, device=call.keys.device)
    return LayerView(
        layer=index,
        keys=call.keys,
        values=call.values,
        valid=torch.ones(1, kv_heads, columns, dtype=torch.bool, device=call.keys.device),
        positions=positions.expand(1, kv_heads, columns),
        queries=call.queries,
        query_positions=positions,
        scaling=call.rules.scaling,
        window=window,
        softcap=call.rules.softcap,
        sinks=call.rules.sinks,
        slopes=call.rules.slopes,
        rotation=rotation,
        output_weight=weight,
    )


@contextmanager
def _hooked(model: PreTrainedModel, residual: _Residual) -> Iterator[None]:
    with ExitStack() as stack:
        for decoder_layer in decoder_layers(model):
            hook = decoder_layer.register_forward_pre_hook(residual.remember, with_kwargs=True)
            stack.callback(hook.remove)
        yield


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The model's decoder layers, which hold the attention modules, from the first to the last."""
    return [model.get_submodule(_layer_path(path)) for path, _ in attention_modules(model)]


def _layer_path(attention: str) -> str:
    """Path of the layer that an attention module is in: up to its number in the list of layers."""
    parts = attention.split(".")
    numbered = [place for place, part in enumerate(parts[:-1]) if part.isdigit()]
    return ".".join(parts[: numbered[-1] + 1] if numbered else parts[:-1])
