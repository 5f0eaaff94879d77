"""Run a model over a prompt once, and look at every layer as its attention is computed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvbudget.heuristics import LayerView

from .attention_call import AttentionCall
from .families import attention_modules, output_weight
from .hf import attention_switched, check_handed_over, layer_windows, observed_cache


@dataclass(frozen=True, slots=True)
class LayerSight:
    """One layer of one prompt, nothing evicted.

    Args:
        view: All tokens and all queries of the layer, a batch of one.
        residual: Residual stream that enters the layer, [1, tokens, hidden].
        output_weight: Output projection by head, [heads, value_dim, hidden], float32.
    """

    view: LayerView
    residual: Tensor
    output_weight: Tensor


class _Residual:
    """The residual stream that entered the layer now running."""

    def __init__(self) -> None:
        self.latest: Tensor | None = None

    def remember(self, _: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Forward pre-hook: decoder layers get the stream first, or as `hidden_states`."""
        self.latest = inputs[0] if inputs else keywords["hidden_states"]


def watch_prompt(
    model: PreTrainedModel, tokens: list[int], look: Callable[[LayerSight], None]
) -> None:
    """Run one forward pass over a prompt and show each layer to `look`, one after the other.

    Only the layer at hand is alive, so memory is that of a forward pass and one layer's caches.
    """
    windows = layer_windows(model.config.get_text_config(decoder=True))
    residual = _Residual()

    def observe(index: int, call: AttentionCall, _output: Tensor) -> None:
        assert residual.latest is not None, "the layer's hook runs before its attention"
        weight = output_weight(model, call.module, call.queries.shape[1])
        look(LayerSight(_view(index, call, windows[index]), residual.latest, weight))

    inputs = torch.tensor([tokens], device=model.device)
    cache = observed_cache(windows, observe)
    with torch.inference_mode(), _hooked(model, residual), attention_switched(model):
        model.base_model(input_ids=inputs, past_key_values=cache, use_cache=True)
        check_handed_over()


def final_residual_norm(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    """Norm of the residual stream behind the last layer, [tokens], float32; one forward pass."""
    caught: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    *_, last = _decoder_layers(model)
    hook = last.register_forward_hook(catch)
    try:
        with torch.inference_mode():
            inputs = torch.tensor([tokens], device=model.device)
            model.base_model(input_ids=inputs, use_cache=False)
    finally:
        hook.remove()
    norm: Tensor = caught[0][0].float().norm(dim=-1)
    return norm


def _view(index: int, call: AttentionCall, window: int | None) -> LayerView:
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
    )


@contextmanager
def _hooked(model: PreTrainedModel, residual: _Residual) -> Iterator[None]:
    with ExitStack() as stack:
        for decoder_layer in _decoder_layers(model):
            hook = decoder_layer.register_forward_pre_hook(residual.remember, with_kwargs=True)
            stack.callback(hook.remove)
        yield


def _decoder_layers(model: PreTrainedModel) -> Iterator[nn.Module]:
    paths = (path.rpartition(".")[0] for path, _ in attention_modules(model))
    return (model.get_submodule(path) for path in paths)


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off, and back on afterwards if it was on."""
    training = [module for module in model.modules() if module.training]
    model.train(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
