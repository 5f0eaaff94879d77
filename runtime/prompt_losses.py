"""Losses of one prompt: read it once, cut every layer's context at every level, ask its future."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from kvbudget.allocator import Geometry
from kvbudget.heuristics import (
    CutView,
    LayerView,
    RereadingHeuristic,
    TokenHeuristic,
    checked_scores,
    observed,
)
from kvbudget.heuristics.measures import Measure, RefinedMeasure
from kvbudget.heuristics.refinement import refined

from .eviction import keep_order
from .gradients import output_gradients
from .replay import FullContext, Replay
from .rereading import reread
from .watching import LayerSight, final_residual_norm, watch_prompt

Floats = NDArray[np.float64]
Advance = Callable[[int], object]


@dataclass(frozen=True, slots=True, eq=False)
class SplitPrompt:
    """A prompt whose first part may be cut and whose last part asks for it.

    Args:
        ids: Token ids.
        future: Tokens of the last part.
        told: What a second reading told of the first part, layer by layer, if there was one.
    """

    ids: list[int]
    future: int
    told: tuple[Tensor, ...] = ()

    @property
    def context(self) -> int:
        """Tokens of the first part."""
        return len(self.ids) - self.future


@dataclass(frozen=True, slots=True, eq=False)
class PromptLosses:
    """Measures prompts, one at a time.

    Args:
        model: A causal LM in evaluation mode.
        geometry: Its caches.
        heuristic: Chooses the tokens that stay at a level.
        measure: What counts as loss.
        fractions: Share of the context kept at each level, [levels].
    """

    model: PreTrainedModel
    geometry: Geometry
    heuristic: TokenHeuristic
    measure: Measure
    fractions: Floats

    def work(self, prompt: SplitPrompt) -> int:
        """About how many tokens go through a layer, the unit of `advance`."""
        whole_passes = len(prompt.ids) + self._reruns(prompt) * prompt.future
        return sum(self._work_of_layers(prompt)) + self.geometry.layers * whole_passes

    def of(self, prompt: SplitPrompt, advance: Advance) -> Floats:
        """Losses of one prompt, [layers, kv_heads, levels].

        Args:
            prompt: What to read.
            advance: Told whenever some of the work is done.
        """
        if isinstance(self.heuristic, RereadingHeuristic):
            told = reread(self.model, self.heuristic, prompt.ids[: prompt.context])
            prompt = replace(prompt, told=tuple(told))
        if self.measure.needs_gradient or self.measure.needs_reruns:
            return self._over_full_cache(prompt, advance)
        return self._layer_by_layer(prompt, advance)

    def _layer_by_layer(self, prompt: SplitPrompt, advance: Advance) -> Floats:
        """Measure each layer while it is read; only its own keys and values are alive."""
        norm = None
        if self.measure.needs_residual:
            norm = final_residual_norm(self.model, prompt.ids)[prompt.context :]
        layers: dict[int, Floats] = {}

        def look(sight: LayerSight) -> None:
            cut = self._cut(prompt, sight.view, self._order(prompt, sight.view))
            # where several attentions read one cache, it loses what all of them lose
            layer = sight.view.layer
            layers[layer] = layers.get(layer, 0.0) + self._loss(layer, cut, norm)
            advance(len(prompt.ids))

        watch_prompt(self.model, prompt.ids, look)
        return np.stack([self._on_grid(layers[layer]) for layer in range(self.geometry.layers)])

    def _over_full_cache(self, prompt: SplitPrompt, advance: Advance) -> Floats:
        """Read all layers first, then measure each with what the model makes of it later on."""
        held: list[tuple[LayerView, Tensor]] = []

        def look(sight: LayerSight) -> None:
            order = self._order(prompt, sight.view)
            held.append((_without_queries(sight.view, prompt.context), order))
            advance(len(prompt.ids))

        norm = watch_prompt(self.model, prompt.ids, look)[prompt.context :]
        replay = Replay(self.model, prompt.ids[prompt.context :], _full_context(held, prompt))
        gradients = output_gradients(replay) if self.measure.needs_gradient else None
        layers: list[Floats] = []
        for (view, order), work in zip(held, self._work_of_layers(prompt), strict=True):
            each = partial(advance, work // self._kv_heads(view.layer))
            cut = replace(
                self._cut(prompt, view, order),
                gradient=None if gradients is None else gradients[view.layer],
                divergence=_followed_by(each, partial(replay.divergence, view.layer)),
            )
            layers.append(self._on_grid(self._loss(view.layer, cut, norm)))
            if not self.measure.needs_reruns:
                advance(work)

        def exact(cache: int, level: int) -> float:
            layer, kv_head = divmod(cache, self.geometry.kv_heads)
            if kv_head >= self._kv_heads(layer):
                return 0.0
            with torch.inference_mode():
                view, order = held[layer]
                if view.keys.shape[1] == self._kv_heads(layer):
                    view, order = view.only(kv_head), order[kv_head : kv_head + 1]
                cut = self._cut(prompt, view, order)
                cut = replace(cut, kept_tokens=cut.kept_tokens[level : level + 1])
                change = cut.delta().movedim(2, 0)  # [1, group, future, value_dim]
                loss = float(replay.divergence(layer, kv_head, change))
            advance(self.geometry.layers * prompt.future)
            return loss

        losses = np.stack(layers)
        estimate = losses.reshape(-1, losses.shape[2])
        return refined(estimate, exact, self._reruns(prompt)).reshape(losses.shape)

    def _reruns(self, prompt: SplitPrompt) -> int:
        """Runs of the future tokens alone that cost what the measure may spend on them."""
        if not isinstance(self.measure, RefinedMeasure):
            return 0
        return int(self.measure.rerun_passes * len(prompt.ids) / prompt.future)

    def _work_of_layers(self, prompt: SplitPrompt) -> list[int]:
        """Work on each layer after all have been read."""
        layers = self.geometry.layers
        if self.measure.needs_reruns:
            once = self.geometry.kv_heads * (len(self.fractions) - 1) * prompt.future
            return [once * (layers - layer) for layer in range(layers)]
        return [prompt.future if self.measure.needs_gradient else 0] * layers

    def _kv_heads(self, layer: int) -> int:
        return self.geometry.shape_of(layer).kv_heads

    def _on_grid(self, loss: Floats) -> Floats:
        """Losses of a layer, with 0 for the KV heads that only wider layers have."""
        return np.pad(loss, ((0, self.geometry.kv_heads - len(loss)), (0, 0)))

    def _loss(self, layer: int, cut: CutView, norm: Tensor | None) -> Floats:
        if norm is not None:
            cut = replace(cut, residual_norm=norm.to(cut.queries.device))
        with torch.inference_mode():
            loss: Floats = self.measure.loss(cut).cpu().numpy()
        # heads that are cut together lose together
        return loss if len(loss) == self._kv_heads(layer) else loss.sum(0, keepdims=True)

    def _order(self, prompt: SplitPrompt, view: LayerView) -> Tensor:
        """Sort the context as the runtime would at eviction, best token first.

        Returns:
            Columns of the tokens that the future can still see, [kv_heads, tokens].
        """
        seen = _context_view(view, prompt.context)
        if prompt.told:
            seen = replace(seen, state=prompt.told[view.layer])
        else:
            seen = observed(self.heuristic, seen)
        reach = seen.valid
        if view.window is not None:
            reach = reach & (seen.positions > prompt.context - view.window)
        num_reached, scores = int(reach[0, 0].sum()), checked_scores(self.heuristic, seen)
        if scores.shape[1] != self._kv_heads(view.layer):
            scores = scores.mean(1, keepdim=True).expand_as(scores)
        return keep_order(scores, reach)[0, :, :num_reached]

    def _cut(self, prompt: SplitPrompt, view: LayerView, order: Tensor) -> CutView:
        """The layer's context in its order, and the levels to cut it at."""
        kept = self.geometry.capacity_tokens(self.fractions, prompt.context)[view.layer, 0]
        at, context = order[..., None], prompt.context
        assert view.output_weight is not None, "a watched layer knows its output projection"
        return CutView(
            queries=view.queries[0, :, -prompt.future :],
            keys=view.keys[0].take_along_dim(at, 1),
            values=view.values[0].take_along_dim(at, 1),
            positions=view.positions[0].take_along_dim(order, 1),
            future_keys=view.keys[0, :, context:],
            future_values=view.values[0, :, context:],
            query_positions=view.query_positions[-prompt.future :],
            kept_tokens=tuple(min(int(tokens), order.shape[1]) for tokens in kept),
            scaling=view.scaling,
            window=view.window,
            softcap=view.softcap,
            sinks=view.sinks,
            slopes=view.slopes,
            output_weight=view.output_weight,
        )


def _followed_by(
    advance: Callable[[], object], divergence: Callable[[int, Tensor], Tensor]
) -> Callable[[int, Tensor], Tensor]:
    """The same function, which also tells that it has done its work."""

    def run(kv_head: int, change: Tensor) -> Tensor:
        found = divergence(kv_head, change)
        advance()
        return found

    return run


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


def _without_queries(view: LayerView, context: int) -> LayerView:
    """The layer without the context's queries, and without whatever else shares their memory."""
    return replace(
        view,
        keys=view.keys.contiguous(),
        values=view.values.contiguous(),
        queries=view.queries[:, :, context:].clone(),
        query_positions=view.query_positions[context:],
    )


def _full_context(held: list[tuple[LayerView, Tensor]], prompt: SplitPrompt) -> FullContext:
    return FullContext(
        keys=[view.keys[:, :, : prompt.context] for view, _ in held],
        values=[view.values[:, :, : prompt.context] for view, _ in held],
    )
