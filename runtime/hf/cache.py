"""The cache that a model gets in place of transformers' own."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from typing import cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from kvbudget.allocator import KVBudgetError, Plan, UnsupportedModel, format_bytes
from kvbudget.allocator.files import FilePath
from kvbudget.heuristics import Rotation, TokenHeuristic

from ..adaptation import Adaptation
from ..cached_layer import CachedLayer
from ..head_split import WHOLE, HeadSplit
from ..layer_stack import LayerStack
from ..rewritten_layer import RewrittenLayer
from ..saved_cache import read_cache, records_in, tensors_of, unusable, write_cache
from ..turn import Turn
from .graph_calls import calls_of
from .graph_ops import first_column
from .handoff import NOT_IN_GRAPHS, hand_over
from .layers import BudgetedCacheLayer, HybridCacheLayer, RewrittenCacheLayer
from .layout import Layout
from .masks import UNTOLD
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
        self.graph_calls = calls_of(self.stack, self.turn, self.layers, layout.cached)

    def __repr__(self) -> str:
        """Bytes held and allowed, and tokens read."""
        held, allowed = format_bytes(self.nbytes()), format_bytes(self.plan.budget_bytes)
        return f"BudgetedCache({self.get_seq_length()} tokens read, {held} of {allowed} held)"

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
        if self._is_traced():
            # what is to be done is done together with the attention, by one operator
            hand_over(self, layer_idx, key_states)
            return key_states, value_states
        tokens: tuple[Tensor, Tensor] = self.update_now(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return tokens

    @torch.compiler.disable(reason=NOT_IN_GRAPHS)  # type: ignore[untyped-decorator]
    def update_now(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """The same outside of compiled graphs."""
        if self.graph_calls is not None:
            self.graph_calls.withdraw(self._index(layer_idx), key_states.device)
        if layer_idx == self._layout.cached[0].number:
            self.turn.check_begun()
            self.stack.check_input(len(key_states), key_states.shape[2])
            self.stack.expect(len(key_states), key_states.shape[2])
        tokens: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns seen, kept or not; a tensor where that is a part of a graph."""
        calls = self.graph_calls
        if calls is None:
            return super().get_seq_length(layer_idx)
        if not calls.tells_columns or not self._is_traced():
            # the token under way may be counted already
            return calls.columns_before(self._index(layer_idx))
        return 0 if calls.like is None else first_column(calls.like, calls.number)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Column of the first new token, for masks."""
        return UNTOLD if self._is_untold() else super().get_query_offset(layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Columns and offset of the mask: all columns seen, kept or not."""
        if query_length == 1 and self._is_untold():
            return UNTOLD, 0
        if self.graph_calls is not None:
            return self.graph_calls.columns_before(self._index(layer_idx)) + query_length, 0
        sizes: tuple[int, int] = super().get_mask_sizes(query_length, layer_idx)
        return sizes

    def traced_layer(self, number: int) -> tuple[BudgetedCacheLayer, int]:
        """A layer of the model, and the number by which graphs find the cache."""
        assert self.graph_calls is not None, "only ordinary layers are traced"
        return cast(BudgetedCacheLayer, self.layers[number]), self.graph_calls.number

    def _index(self, number: int) -> int:
        layer = self.layers[number] if number < len(self.layers) else None
        return layer.index if isinstance(layer, BudgetedCacheLayer) else 0

    def _is_untold(self) -> bool:
        """Whether masks are not to tell the number of columns, nor to be made for it."""
        calls = self.graph_calls
        return calls is not None and calls.tells_columns and self._is_traced()

    def _is_traced(self) -> bool:
        """Whether a graph is being made of what is called."""
        calls = self.graph_calls
        is_graph = calls is not None and (torch.compiler.is_compiling() or calls.is_held)
        return is_graph and self.turn.is_in_context()

    def _settle(self) -> None:
        if self.graph_calls is not None:
            self.graph_calls.settle()

    def decoding_step(self) -> AbstractContextManager[int]:
        """Make room for one more token of each row, to record its forward or to replay it.

        What remains to be done inside writes and reads the same memory from token to token, so it
        can be recorded in a CUDA graph. Doing it twice, to warm up, does no harm.

            graphs = {}
            with cache.decoding_step() as number:
                if number not in graphs:
                    model(token, past_key_values=cache)
                    graphs[number] = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graphs[number]):
                        logits = model(token, past_key_values=cache).logits
                graphs[number].replay()

        Returns:
            A context that yields a number, another one when graphs recorded before are void. If it
            is left by an error the token counts as never come.

        Raises:
            UnsupportedModel: The model's layers do what no graph can hold.
            ValueError: Nothing was read yet.
            KVBudgetError: The last forward broke off half-way, or another is under way.
        """
        if self.graph_calls is None or not self.graph_calls.tells_columns:
            raise UnsupportedModel(
                f"Decoding steps cannot be recorded for this model: it has layers that graphs "
                f"cannot hold, or counts its tokens in Python. {NOT_IN_GRAPHS}"
            )
        self.check_current()
        return self.graph_calls.held_step()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest tokens, given as a negative number."""
        self._settle()
        super().crop(tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch, within the budget."""
        self._settle()
        self.stack.shrink_to(self.stack.rows * repeats, self.get_seq_length())
        rows = torch.arange(self.stack.rows).repeat_interleave(repeats)
        self._follow(rows)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Follow the beams, within the budget."""
        self._settle()
        self.stack.follow(beam_idx)
        super().reorder_cache(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, within the budget."""
        self._settle()
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
        self._settle()
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
        self._settle()
        self.stack.grow(plan)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of all that the cache holds and remembers, as named tensors.

        `torch.save` may write it, and reading it back needs nothing but `weights_only=True`.

        Raises:
            KVBudgetError: The last forward broke off half-way.
        """
        states = state_tensors(self.layers)  # what the others tell is a copy already
        return self._tensors() | {name: each.clone() for name, each in states.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from where a cache was, in place of what is held.

        Args:
            tensors: What `state_dict` returned, of a cache with the same plan and heuristic.

        Raises:
            TypeError: They are no tensors by name.
            WrongModel: They are of another model.
            BadFile: They are of no cache, of one with another plan or heuristic, or damaged.
        """
        self._settle()
        records = records_in(tensors, self.stack)
        try:
            check_states(self.layers, tensors)
            self.reset()
            self.stack.take_up(records)
        except (RuntimeError, ValueError) as error:
            raise unusable(error) from error
        restore_states(self.layers, tensors, self._layout.spread(self.stack.place_of))

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

    def _tensors(self) -> dict[str, Tensor]:
        self._settle()
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
        if self.graph_calls is not None:
            self.graph_calls.forget()
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

    def _layer(self, cached: CachedLayer) -> BudgetedCacheLayer:
        layer = self.stack.layers[cached.index]
        if isinstance(layer, RewrittenLayer):
            return RewrittenCacheLayer(layer, cached)
        kind = HybridCacheLayer if cached.states else BudgetedCacheLayer
        return kind(layer, cached)
