"""Measure what every cache of a model loses at every level.

One forward pass per prompt with the full cache. The prompt is split into a context, which is
cut, and future tokens, which then ask. The token heuristic sees the context only, as it would
at eviction time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kvbudget.allocator import DEFAULT_LEVELS, Geometry, Profile
from kvbudget.heuristics import (
    CacheHeuristic,
    CacheView,
    CutView,
    LayerView,
    TokenHeuristic,
    check_kind,
    checked_importance,
    checked_scores,
    measures,
    name_of,
    settings_of,
)
from kvbudget.heuristics.measures import Divergence, Measure

from .eviction import keep_order
from .gradients import output_gradients
from .prompts import Prompt, token_ids
from .session import geometry_of
from .watching import LayerSight, evaluating, final_residual_norm, watch_prompt

MOST_FUTURE_TOKENS = 256

Floats = NDArray[np.float64]


def measure_profile(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    heuristic: TokenHeuristic,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    levels: Sequence[float] = DEFAULT_LEVELS,
    measure: Measure | str | None = None,
    future_tokens: int | None = None,
    progress: bool = True,
) -> Profile:
    """Measure the loss of every cache at every level, all levels in one pass over each prompt.

    Memory is that of one forward pass and one layer's queries, keys and values; `Divergence` takes
    a backward pass, and so the activations of all layers.

    Args:
        model: A causal LM of a supported family.
        prompts: Texts or token ids like those the model will meet, each a context and what
            follows it; a few prompts of a thousand tokens or more.
        heuristic: Chooses the tokens that stay at a level.
        tokenizer: Needed for texts.
        levels: Shares of the context that a cache may keep, rising, the last one 1.
        measure: What counts as loss: a measure or its registered name; `Divergence()` by
            default, whose losses are nats per token and take a backward pass.
        future_tokens: Last tokens of each prompt that ask for what was kept; a quarter of the
            prompt, at most 256, by default.
        progress: Show a progress bar on stderr.

    Returns:
        The profile: the mean over the prompts, and every prompt's own losses.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly.
        ValueError: Prompts, levels or future tokens cannot be used; says which.
    """
    check_kind(heuristic, TokenHeuristic)
    geometry = geometry_of(model)
    chosen, name, settings = _measure(measure), name_of(heuristic), settings_of(heuristic)
    fractions = _check_levels(levels)
    found = _prompt_ids(model, prompts, tokenizer)
    futures = [_future(ids, future_tokens) for ids in found]
    with evaluating(model):
        samples = [
            _sample(model, ids, heuristic, chosen, fractions, geometry, future)
            for ids, future in zip(_bar(found, progress, "measuring"), futures, strict=True)
        ]
    sample_loss = np.stack(samples)
    return Profile(
        loss=sample_loss.mean(0),
        sample_loss=sample_loss,
        kept_fraction=fractions,
        geometry=geometry,
        model=str(model.config.name_or_path or ""),
        heuristic=name,
        heuristic_settings=settings,
        measure=chosen.name,
        made_by=f"measure_profile over {len(samples)} prompts, measure {chosen!r}",
    )


def measure_importance(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    heuristic: CacheHeuristic,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> Floats:
    """Weigh every cache of a model with a cache heuristic; see `Profile.from_importance`.

    Returns:
        Importance, mean over the prompts, [layers, kv_heads], float64, higher deserves more.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly.
        ValueError: The prompts cannot be used; says which.
    """
    check_kind(heuristic, CacheHeuristic)
    geometry_of(model)
    samples = []
    with evaluating(model):
        for ids in _bar(_prompt_ids(model, prompts, tokenizer), progress, "weighing"):
            layers: list[Floats] = []
            watch_prompt(model, ids, partial(_weigh, heuristic, layers))
            samples.append(np.stack(layers))
    importance: Floats = np.mean(samples, axis=0)
    return importance


def _weigh(heuristic: CacheHeuristic, found: list[Floats], sight: LayerSight) -> None:
    view = CacheView(sight.view, sight.residual, sight.output_weight)
    found.append(checked_importance(heuristic, view).double().cpu().numpy())


def _sample(
    model: PreTrainedModel,
    ids: list[int],
    heuristic: TokenHeuristic,
    measure: Measure,
    fractions: Floats,
    geometry: Geometry,
    future: int,
) -> Floats:
    """Losses of one prompt, [layers, kv_heads, levels]."""
    context = len(ids) - future
    kept = geometry.capacity_tokens(fractions, context)[:, 0]  # [layers, levels]
    norm = final_residual_norm(model, ids)[context:] if measure.needs_residual else None
    gradients = output_gradients(model, ids, future) if measure.needs_gradient else None
    layers: list[Floats] = []

    def look(sight: LayerSight) -> None:
        layer = sight.view.layer
        cut = _cut(sight, heuristic, context, kept[layer])
        gradient = None if gradients is None else gradients[layer]
        cut = replace(cut, residual_norm=norm, gradient=gradient)
        layers.append(measure.loss(cut).cpu().numpy())

    watch_prompt(model, ids, look)
    return np.stack(layers)


def _cut(
    sight: LayerSight, heuristic: TokenHeuristic, context: int, kept_tokens: NDArray[np.int64]
) -> CutView:
    """Sort the context of one layer as the runtime would at eviction, best token first."""
    view, seen = sight.view, _context_view(sight.view, context)
    reach = seen.valid
    if view.window is not None:
        reach = reach & (seen.positions > context - view.window)
    num_reached = int(reach[0, 0].sum())
    order = keep_order(checked_scores(heuristic, seen), reach)[0, :, :num_reached]
    at = order[..., None]
    return CutView(
        queries=view.queries[0, :, context:],
        keys=view.keys[0].take_along_dim(at, 1),
        values=view.values[0].take_along_dim(at, 1),
        positions=view.positions[0].take_along_dim(order, 1),
        future_keys=view.keys[0, :, context:],
        future_values=view.values[0, :, context:],
        query_positions=view.query_positions[context:],
        kept_tokens=tuple(min(int(tokens), num_reached) for tokens in kept_tokens),
        scaling=view.scaling,
        window=view.window,
        softcap=view.softcap,
        sinks=view.sinks,
        output_weight=sight.output_weight,
    )


def _context_view(view: LayerView, context: int) -> LayerView:
    """What the heuristic sees when the context has been read: nothing of the future."""
    return replace(
        view,
        keys=view.keys[:, :, :context],
        values=view.values[:, :, :context],
        valid=view.valid[:, :, :context],
        positions=view.positions[:, :, :context],
        queries=view.queries[:, :, :context],
        query_positions=view.query_positions[:context],
    )


def _prompt_ids(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase | None,
) -> list[list[int]]:
    vocabulary = len(model.get_input_embeddings().get_parameter("weight"))
    positions = getattr(model.config, "max_position_embeddings", None)
    return token_ids(prompts, tokenizer, vocabulary, positions)


def _measure(measure: Measure | str | None) -> Measure:
    if isinstance(measure, str):
        return measures.build(measure)
    return Divergence() if measure is None else measure


def _check_levels(levels: Sequence[float]) -> Floats:
    fractions = np.asarray(levels, dtype=np.float64)
    rising = fractions.ndim == 1 and len(fractions) > 0 and bool((np.diff(fractions) > 0).all())
    if not rising or fractions[0] <= 0 or fractions[-1] != 1:
        raise ValueError(
            f"`levels` must be rising shares of the context, above 0 and ending in 1, but got "
            f"{list(levels)!r:.80}."
        )
    return fractions


def _future(ids: list[int], future_tokens: int | None) -> int:
    wanted = min(MOST_FUTURE_TOKENS, len(ids) // 4) if future_tokens is None else future_tokens
    if not 0 < wanted < len(ids):
        raise ValueError(
            f"`future_tokens` must be at least 1 and leave some context, but got {wanted} for a "
            f"prompt of {len(ids)} tokens."
        )
    return wanted


def _bar(prompts: list[list[int]], progress: bool, what: str) -> Iterable[list[int]]:
    bar: Iterable[list[int]] = tqdm(prompts, desc=what, unit="prompt", disable=not progress)
    return bar
