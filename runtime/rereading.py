"""Let a model read a prompt a second time, for heuristics that judge by it."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvbudget.heuristics import (
    LayerView,
    Part,
    RereadingHeuristic,
    TokenHeuristic,
    checked_parts,
    observed,
)
from kvbudget.kernels.attention import chunks, visible

from .anatomy import layout_of
from .attention_call import QUERY_CHUNK, AttentionCall
from .devices import input_device
from .hf import (
    BudgetedCache,
    attention_switched,
    delegating_cache,
    ordinary_attention,
    refuse_stranded,
)
from .output_projection import output_weight
from .prompts import vocabulary_of
from .rotations import layer_rotations


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Tokens of one forward pass that follow the prompt, or the prompt itself.

    Args:
        start: Place of the first token in the pass.
        count: Number of tokens.
        column: Column of the first token in the sequence that the model believes to read.
    """

    start: int
    count: int
    column: int

    def columns(self) -> list[int]:
        """Column of every token."""
        return list(range(self.column, self.column + self.count))


def reread(
    model: PreTrainedModel, heuristic: RereadingHeuristic, prompt: Sequence[int]
) -> list[Tensor]:
    """Read a prompt and all parts of its second reading in one forward pass.

    Every part sees the prompt and itself. Only the layer at hand is alive, so memory is that of a
    forward pass over all these tokens and one layer's queries, keys and values.

    Args:
        model: A causal LM of a supported family.
        heuristic: Says what is read again, and observes it.
        prompt: Token ids without padding.

    Returns:
        For each layer the state of the prompt's tokens, [1, kv_heads, tokens, channels], float32.

    Raises:
        ValueError: The model has too few positions for a second reading, or the heuristic's parts
            cannot be read.
    """
    most = getattr(model.config, "max_position_embeddings", None)
    left = None if most is None else most - len(prompt)
    parts = checked_parts(heuristic, prompt, left, vocabulary_of(model))
    pass_ = _Pass(model, heuristic, prompt, parts)
    pass_.run(model)
    return pass_.states


class _Pass:
    """One forward pass over a prompt and its parts.

    Attributes:
        states: What the heuristic remembers, layer by layer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        heuristic: RereadingHeuristic,
        prompt: Sequence[int],
        parts: list[Part],
    ) -> None:
        self._heuristic, self._parts = heuristic, parts
        self._layout = layout_of(model)
        self._windows = self._layout.windows
        self._rotations = layer_rotations(model)
        self._prompt = _Stretch(0, len(prompt), 0)
        self._stretches: list[_Stretch] = []
        self._ids = list(prompt)
        for part in parts:
            self._stretches.append(_Stretch(len(self._ids), len(part.ids), len(prompt)))
            self._ids += part.ids
        self.states: list[Tensor] = []

    @torch.inference_mode(False)
    @torch.no_grad()
    def run(self, model: PreTrainedModel) -> None:
        """Fill ``states``."""
        device = input_device(model)
        columns = [column for each in (self._prompt, *self._stretches) for column in each.columns()]
        cache = delegating_cache(self._layout, self._attend)
        with attention_switched(model):
            model.base_model(
                input_ids=torch.tensor([self._ids], device=device),
                position_ids=torch.tensor([columns], device=device),
                # a mask of four dimensions is handed on untouched: none is built for all pairs
                attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
                past_key_values=cache,
                use_cache=True,
            )
            refuse_stranded()

    def _attend(self, index: int, call: AttentionCall) -> Tensor:
        """Attention of every stretch to the prompt and itself, [1, new, heads, value_dim]."""
        self.states.append(self._observed(index, call))
        window = self._windows[index]
        first, stretches = [], [self._prompt, *self._stretches]
        if window is None or window >= self._prompt.count:
            first, stretches = [self._plain(call)], self._stretches
        outputs = [
            self._rows(call, each, rows, window)
            for each in stretches
            for rows in chunks(each.count, QUERY_CHUNK)
        ]
        return torch.cat([*first, *outputs], dim=1)

    def _plain(self, call: AttentionCall) -> Tensor:
        """Attention of the prompt to itself where no window ends; needs no mask."""
        queries, keys, values = (
            each[:, :, : self._prompt.count] for each in (call.queries, call.keys, call.values)
        )
        return ordinary_attention(
            replace(call, queries=queries, keys=keys, values=values, mask=None)
        )

    def _rows(
        self, call: AttentionCall, stretch: _Stretch, rows: slice, window: int | None
    ) -> Tensor:
        """Attention of some queries of a stretch, [1, rows, heads, value_dim]."""
        device = call.keys.device
        places, columns = self._seen_by(stretch, rows.stop)
        at = torch.tensor(places, device=device)
        queries = torch.arange(rows.start, rows.stop, device=device) + stretch.column
        part = replace(
            call,
            queries=call.queries[:, :, stretch.start + rows.start : stretch.start + rows.stop],
            keys=call.keys[:, :, at],
            values=call.values[:, :, at],
            mask=visible(torch.tensor(columns, device=device), queries, window)[None, None],
        )
        return ordinary_attention(part)

    def _seen_by(self, stretch: _Stretch, count: int) -> tuple[list[int], list[int]]:
        """Places and columns of the prompt and the first ``count`` tokens of a stretch."""
        own = range(stretch.start, stretch.start + count)
        before = range(0) if stretch is self._prompt else range(self._prompt.count)
        return [*before, *own], [*before, *stretch.columns()[:count]]

    def _observed(self, index: int, call: AttentionCall) -> Tensor:
        """Show every part to the heuristic; the state of the prompt's tokens."""
        found = []
        for part, stretch in zip(self._parts, self._stretches, strict=True):
            seen = observed(self._heuristic, self._view(index, call, part, stretch))
            assert seen.state is not None, "a running heuristic always has a state"
            found.append(seen.state[:, :, part.beside : part.beside + part.last - part.first])
        return torch.cat(found, dim=2)

    def _view(self, index: int, call: AttentionCall, part: Part, stretch: _Stretch) -> LayerView:
        """What a part is shown with: the first tokens, those it judges, and itself."""
        device, kv_heads = call.keys.device, call.keys.shape[1]
        prompt = [*range(part.beside), *range(part.first, part.last)]
        own = slice(stretch.start, stretch.start + stretch.count)
        at = torch.tensor([*prompt, *range(own.start, own.stop)], device=device)
        columns = torch.tensor([*prompt, *stretch.columns()], device=device)
        places = (1, kv_heads, len(columns))
        weight = None
        if self._heuristic.reads_output_weight:
            weight = output_weight(call.module, call.queries.shape[1])
        return LayerView(
            layer=index,
            keys=call.keys[:, :, at],
            values=call.values[:, :, at],
            valid=torch.ones(places, dtype=torch.bool, device=device),
            positions=columns.expand(places),
            queries=call.queries[:, :, own],
            query_positions=columns[len(prompt) :],
            scaling=call.rules.scaling,
            window=self._windows[index],
            softcap=call.rules.softcap,
            sinks=call.rules.sinks,
            slopes=call.rules.slopes,
            rotation=self._rotations[index],
            output_weight=weight,
        )


@contextmanager
def prompts_reread(model: PreTrainedModel, heuristic: TokenHeuristic) -> Iterator[None]:
    """Have the first block that goes into a cache read twice, if its heuristic wants that."""
    if not isinstance(heuristic, RereadingHeuristic):
        yield
        return
    hook = model.register_forward_pre_hook(_before(model, heuristic), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _before(
    model: PreTrainedModel, heuristic: RereadingHeuristic
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    signature = inspect.signature(model.forward)

    def before(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = signature.bind_partial(*arguments, **keywords).arguments
        cache = given.get("past_key_values")
        if not isinstance(cache, BudgetedCache) or cache.get_seq_length():
            return
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if ids is None:
            raise ValueError(
                f"{type(heuristic).__name__} lets the model read the prompt twice, so it must be "
                "given as `input_ids`, but got none. Pass ids, or use another heuristic."
            )
        if mask is not None and mask.dim() != 2:
            raise ValueError(
                f"{type(heuristic).__name__} lets the model read the prompt twice, so "
                f"`attention_mask` must be [batch, tokens], but got {list(mask.shape)}."
            )
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(
                f"`attention_mask` must have one entry per token of the prompt, {list(ids.shape)}, "
                f"but got {list(mask.shape)}."
            )
        cache.stack.foretell(_states(model, heuristic, ids, mask))

    return before


@torch.inference_mode(False)
@torch.no_grad()
def _states(
    model: PreTrainedModel, heuristic: RereadingHeuristic, ids: Tensor, mask: Tensor | None
) -> list[Tensor]:
    """States of a batch, layer by layer, each [batch, kv_heads, columns, channels].

    Padding has the state 0.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    found: dict[tuple[int, ...], list[Tensor]] = {}
    states: list[Tensor] = []
    for row, valid in enumerate(real):
        prompt = tuple(ids[row][valid].tolist())
        if not prompt:
            continue
        # beams and returned sequences begin as equal rows
        if prompt not in found:
            found[prompt] = reread(model, heuristic, prompt)
        for layer, state in enumerate(found[prompt]):
            if layer == len(states):
                shape = (len(ids), state.shape[1], ids.shape[1], state.shape[3])
                states.append(state.new_zeros(shape))
            states[layer][row, :, valid.to(state.device)] = state[0]
    return states
