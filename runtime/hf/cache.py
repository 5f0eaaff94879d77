"""The cache that a model gets in place of transformers' own."""

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from typing import cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from kvbudget.allocator import KVBudgetError, Plan, format_bytes
from kvbudget.allocator.files import FilePath
from kvbudget.heuristics import Rotation, TokenHeuristic

from ..adaptation import Adaptation
from ..cached_layer import CachedLayer
from ..head_split import WHOLE, HeadSplit
from ..layer_stack import LayerStack
from ..rewritten_layer import RewrittenLayer
from ..saved_cache import read_cache, records_in, tensors_of, unusable, write_cache
from ..turn import Turn
from .layers import BudgetedCacheLayer, HybridCacheLayer, RewrittenCacheLayer
from .layout import Layout
from .saved_states import check_states, restore_states, state_tensors


class BudgetedCache(Cache):
    """A KV cache that holds no more bytes than its plan.

    Pass it to `model.generate(..., past_key_values=cache)` or to the model's forward.

    Args:
        plan: Capacities per layer and KV head.
        heuristic: Scores the tokens whenever some have to go.
        layout: The layers of the model.
        rotations: How each layer rotates queries and keys; nothing known by default.
        devices: Where each layer keeps its keys and values; all together by default.
        adapt: Divides the capacities anew for each prompt; the plan's hold by default.
        split: Which KV heads are in this process; the plan is for those of all.
    """

    def __init__(
        self,
        plan: Plan,
        heuristic: TokenHeuristic,
        layout: Layout,
        rotations: Sequence[Rotation | None] | None = None,
        devices: Sequence[Hashable] | None = None,
        adapt: Adaptation | None = None,
        split: HeadSplit = WHOLE,
    ) -> None:
        self.stack = LayerStack(plan, heuristic, layout.cached, rotations, devices, adapt, split)
        self._layout, self.turn = layout, Turn()
        super().__init__(layers=layout.layers(self._layer))

    def __repr__(self) -> str:
        """Bytes held and allowed, and tokens read."""
        held, allowed = format_bytes(self.nbytes()), format_bytes(self.plan.budget_bytes)
        return f"BudgetedCache({self.get_seq_length()} tokens read, {held} of {allowed} held)"

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Take note of new tokens of one layer; at the first layer all of them get ready.

        Raises:
            KVBudgetError: The last forward broke off half-way, or this one is not of the cache's
                own model inside its context.
        """
        if layer_idx == self._layout.cached[0].number:
            self.turn.check_begun()
            self.check_input(len(key_states), key_states.shape[2])
            self.stack.expect(len(key_states), key_states.shape[2])
        tokens: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return tokens

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch, within the budget."""
        self.stack.shrink_to(self.stack.rows * repeats, self.get_seq_length())
        rows = torch.arange(self.stack.rows).repeat_interleave(repeats)
        self._follow(rows)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Follow the beams, within the budget."""
        self.stack.follow(beam_idx)
        super().reorder_cache(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, within the budget."""
        rows = indices.nonzero().flatten() if indices.dtype == torch.bool else indices
        self.stack.follow(rows)
        self._follow(rows)

    def _follow(self, rows: Tensor) -> None:
        # every kind of layer can reorder its rows, but those with states alone nothing else
        if self.stack.rows:
            super().reorder_cache(cast(torch.LongTensor, rows))

    @property
    def plan(self) -> Plan:
        """The plan that holds now."""
        return self.stack.plan

    def shrink(self, plan: Plan) -> None:
        """Give memory back at once: go on within a plan of the same model and a smaller budget.

        Every cache is cut to its new capacity, and the memory is that of the new plan when the
        call returns; on the way, both are there. A plan at another budget is a lookup in a path:

            path = kvbudget.solve_path(profile, context_tokens=32_768)
            with kvbudget.budgeted(model, path.plan("50%")) as cache:
                model.generate(**inputs, past_key_values=cache)
                cache.shrink(path.plan("25%"))

        Args:
            plan: Capacities for the same model.

        Raises:
            TypeError: It is no plan.
            ValueError: Its budget is larger.
            WrongModel: It was made for another model.
            InfeasibleBudget: It was made for fewer rows, and they do not fit.
            KVBudgetError: The last forward broke off half-way.
        """
        self.stack.shrink(plan)

    def grow(self, plan: Plan) -> None:
        """Make room for more tokens: go on within a plan of the same model and a larger budget.

        What was evicted does not come back.

        Args:
            plan: Capacities for the same model.

        Raises:
            TypeError: It is no plan.
            ValueError: Its budget is smaller.
            WrongModel: It was made for another model.
            InfeasibleBudget: It was made for fewer rows, and they do not fit.
            KVBudgetError: The last forward broke off half-way.
        """
        self.stack.grow(plan)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of all that the cache holds and remembers, as named tensors.

        `torch.save` may write it, and reading it back needs nothing but `weights_only=True`.

        Raises:
            KVBudgetError: The last forward broke off half-way.
        """
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from where a cache was, in place of what is held.

        Args:
            tensors: What `state_dict` returned, of a cache with the same plan and heuristic.

        Raises:
            TypeError: They are no tensors by name.
            WrongModel: They are of another model.
            BadFile: They are of no cache, of one with another plan or heuristic, or damaged.
        """
        records = records_in(tensors, self.stack)
        try:
            check_states(self.layers, tensors)
            self.reset()
            self.stack.take_up(records)
        except (RuntimeError, ValueError) as error:
            raise unusable(error) from error
        restore_states(self.layers, tensors, self._places())

    def save(self, path: FilePath) -> None:
        """Write all that the cache holds and remembers as a safetensors file.

        Raises:
            FileNotFoundError: The folder does not exist.
            IsADirectoryError: The path is a folder.
            KVBudgetError: The last forward broke off half-way.
        """
        write_cache(path, self._tensors())

    def load(self, path: FilePath) -> None:
        """Go on from where a cache was when it was saved, in place of what is held.

            with kvbudget.budgeted(model, plan) as cache:
                cache.load("conversation.safetensors")
                output = model.generate(**inputs, past_key_values=cache)

        Args:
            path: What `save` wrote, of a cache with the same plan and heuristic.

        Raises:
            BadFile: The file is missing, damaged, foreign, written by a newer version, or of a
                cache with another plan or heuristic.
            WrongModel: It is of another model.
        """
        self.load_state_dict(read_cache(path))

    def _places(self) -> list[torch.device | None]:
        """Where each layer of the model computes, as far as known: as the nearest before it."""
        places = [self.stack.place_of(0)] * len(self.layers)
        for cached in self._layout.cached:
            after = len(places) - cached.number
            places[cached.number :] = [self.stack.place_of(cached.index)] * after
        return places

    def _tensors(self) -> dict[str, Tensor]:
        return {**tensors_of(self.stack), **state_tensors(self.layers)}

    def nbytes(self, overhead: bool = False) -> int:
        """Bytes of the live K and V storages, read from the storages themselves.

        Args:
            overhead: Count positions, offsets, and what is remembered for the heuristic.
        """
        return self.stack.nbytes(overhead)

    def kept_positions(self, layer: int) -> list[list[Tensor]]:
        """Columns that one layer holds now, padding columns counted.

        Returns:
            For each sequence and KV head the sorted original columns, int64: `[batch][kv_heads]`.
        """
        return self.stack.kept_positions(layer)

    def reset(self) -> None:
        """Forget everything; the next prompt may have another number of rows.

        Caches that `generate` returned for want of one of its caller's cannot be used any more.
        """
        self.start_over()
        self.turn.call_in()

    def start_over(self) -> None:
        """Forget everything, but leave it to those who have it."""
        for number, fresh in enumerate(self._layout.layers(self._layer)):
            if isinstance(self.layers[number], BudgetedCacheLayer):
                self.layers[number].reset()
            else:
                self.layers[number] = fresh

    def lend(self, other: Cache | None = None) -> "BudgetedCache":
        """Empty the cache for a caller that is to have a fresh one, until the next one comes.

        Args:
            other: A cache that the caller made, to lead to the same layers.

        Returns:
            A cache with the layers of this one; the next `reset` takes them away from it.
        """
        self.reset()
        lent = copy(self)
        if other is not None and any(map(other.is_recording_past, range(len(other.layers)))):
            # drafts will be taken back
            lent.activate_past_recording()  # type: ignore[no-untyped-call]
        for borrower in (lent, *([] if other is None else [other])):
            borrower.layers = self.layers
            self.turn.borrowers.add(borrower)
        return lent

    def check_current(self) -> None:
        """Refuse a cache whose layers were lent to it, and taken away since.

        Raises:
            KVBudgetError: They were.
        """
        if not self.layers:
            raise KVBudgetError(
                "An earlier generate filled this cache, and since then its memory was emptied for "
                "another: pass past_key_values=cache to every generate of one conversation."
            )

    def check_input(self, rows: int, new: int) -> None:
        """Refuse tokens that cannot follow those read so far.

        Raises:
            ValueError: There are none, or in another number of rows.
        """
        if not new and not self.get_seq_length():
            raise ValueError("The prompt must hold at least one token, but is empty.")
        if not new:
            raise ValueError(
                f"The input must hold at least one token beyond the {self.get_seq_length()} that "
                f"the cache has read. Pass the whole conversation with the new tokens at its end, "
                f"or call cache.reset() first."
            )
        if rows != self.stack.rows and self.stack.rows:
            raise ValueError(
                f"The cache holds {self.stack.rows} row(s), but the input has {rows}: call "
                f"cache.reset() for a new batch, or repeat and select rows with "
                f"cache.batch_repeat_interleave and cache.batch_select_indices."
            )

    def _layer(self, cached: CachedLayer) -> BudgetedCacheLayer:
        layer = self.stack.layers[cached.index]
        if isinstance(layer, RewrittenLayer):
            return RewrittenCacheLayer(layer, cached)
        kind = HybridCacheLayer if cached.states else BudgetedCacheLayer
        return kind(layer, cached)
