"""Weigh every cache of a model with a cache heuristic."""

import random
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kvbudget.heuristics import (
    CacheHeuristic,
    CacheView,
    ProbeHeuristic,
    check_kind,
    checked_importance,
    checked_probe,
)

from .evaluating import evaluating
from .gradients import output_gradients
from .measurable import check_weighable
from .prompts import Prompt, prompt_ids, vocabulary_of
from .replay import FullContext, Replay
from .session import geometry_of
from .watching import LayerSight, watch_prompt

Floats = NDArray[np.float64]


def measure_importance(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    heuristic: CacheHeuristic,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Floats:
    """Weigh every cache of a model with a cache heuristic.

    The result goes to a published rule, which divides by it as its authors do, or becomes a
    profile for any solver, where memory is shared in proportion to it:

        import kvbudget as kvb
        from kvbudget.runtime import geometry_of

        importance = kvb.measure_importance(model, prompts, kvb.heuristics.RetrievalHeads())
        solver = kvb.solvers.RazorAttention(importance=importance)
        profile = kvb.Profile.from_importance(importance, geometry_of(model))

    Memory is that of one forward pass and one layer's queries, keys, values and outputs; a
    heuristic that needs gradients takes a backward pass, and so the activations of all layers.

    Args:
        model: A causal LM of a supported family.
        prompts: Texts or token ids like those the model will meet. A heuristic that shows the
            model a probe makes one of each, no longer than the prompt.
        heuristic: Weighs the caches of a layer.
        tokenizer: Needed for texts.
        seed: Seed of all probes. Heuristics without probes do not draw.
        progress: Show a progress bar on stderr.

    Returns:
        Importance, mean over the prompts, [layers, kv_heads], float64, higher deserves more.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly.
        ValueError: The prompts cannot be used; says which.
    """
    check_kind(heuristic, CacheHeuristic)
    check_weighable(model, heuristic)
    draw = random.Random(seed)
    found = prompt_ids(model, prompts, tokenizer)
    bar: Iterable[list[int]] = tqdm(found, desc="weighing", unit="prompt", disable=not progress)
    with evaluating(model):
        samples = [_sample(model, ids, heuristic, draw) for ids in bar]
    importance: Floats = np.mean(samples, axis=0)
    return importance


def _sample(
    model: PreTrainedModel, ids: list[int], heuristic: CacheHeuristic, draw: random.Random
) -> Floats:
    """Importance by one prompt, [layers, kv_heads]."""
    copied_from: Tensor | None = None
    if isinstance(heuristic, ProbeHeuristic):
        probe = checked_probe(heuristic, ids, vocabulary_of(model), draw)
        ids = list(probe.tokens)
        copied_from = torch.tensor(probe.copied_from)
    gradients = _gradients(model, ids) if heuristic.needs_gradient else None
    layers: list[Floats] = []
    watch_prompt(model, ids, partial(_weigh, heuristic, gradients, copied_from, layers))
    widest = max(len(layer) for layer in layers)
    return np.stack([np.pad(layer, (0, widest - len(layer))) for layer in layers])


def _gradients(model: PreTrainedModel, ids: list[int]) -> list[Tensor]:
    """Gradients at every token of a prompt: all of it is future, and the context is empty."""
    geometry = geometry_of(model)
    with torch.inference_mode(False):
        keys = [_no_tokens(each.kv_heads, each.head_dim, model.dtype) for each in geometry.shapes]
        values = [
            _no_tokens(each.kv_heads, each.value_dim, model.dtype) for each in geometry.shapes
        ]
    nothing = FullContext(keys, values)
    return output_gradients(Replay(model, ids, nothing))


def _no_tokens(kv_heads: int, dim: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(1, kv_heads, 0, dim, dtype=dtype)


def _weigh(
    heuristic: CacheHeuristic,
    gradients: list[Tensor] | None,
    copied_from: Tensor | None,
    found: list[Floats],
    sight: LayerSight,
) -> None:
    assert sight.view.output_weight is not None, "a watched layer knows its output projection"
    view = CacheView(
        layer=sight.view,
        residual=sight.residual,
        output_weight=sight.view.output_weight.float(),
        gradient=None if gradients is None else gradients[sight.view.layer],
        copied_from=None if copied_from is None else copied_from.to(sight.view.keys.device),
    )
    found.append(checked_importance(heuristic, view).double().cpu().numpy())
