"""The cache that a model gets in place of transformers' own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from kvbudget.allocator import Plan, format_bytes
from kvbudget.heuristics import Rotation, TokenHeuristic

from ..layer_stack import LayerStack
from .layers import BudgetedCacheLayer, HybridCacheLayer
from .layout import CachedLayer, Layout


class BudgetedCache(Cache):
    """A KV cache that holds no more bytes than its plan.

    Pass it to `model.generate(..., past_key_values=cache)` or to the model's forward.

    Args:
        plan: Capacities per layer and KV head.
        heuristic: Scores the tokens whenever some have to go.
        layout: The layers of the model.
        rotations: How each layer rotates queries and keys; nothing known by default.
    """

    def __init__(
        self,
        plan: Plan,
        heuristic: TokenHeuristic,
        layout: Layout,
        rotations: Sequence[Rotation | None] | None = None,
    ) -> None:
        self.plan, self.stack = plan, LayerStack(plan, heuristic, rotations)
        self._layout = layout
        super().__init__(layers=layout.layers(self._layer))

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
            KVBudgetError: The last forward broke off half-way.
        """
        if layer_idx == self._layout.cached[0].number:
            self.stack.expect(len(key_states), key_states.shape[2])
        tokens: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return tokens

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch, within the budget."""
        self.stack.shrink_to(self.stack.rows * repeats, self.get_seq_length())
        super().batch_repeat_interleave(repeats)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Follow the beams, within the budget."""
        self.stack.shrink_to(beam_idx.numel(), self.get_seq_length())
        super().reorder_cache(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, within the budget."""
        self.stack.shrink_to(indices.numel(), self.get_seq_length())
        super().batch_select_indices(indices)

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
        """Forget everything; the next prompt may have another number of rows."""
        for number, fresh in enumerate(self._layout.layers(self._layer)):
            if isinstance(self.layers[number], BudgetedCacheLayer):
                self.layers[number].reset()
            else:
                self.layers[number] = fresh

    def _layer(self, cached: CachedLayer) -> BudgetedCacheLayer:
        layer = self.stack.layers[cached.index]
        kind = HybridCacheLayer if cached.states else BudgetedCacheLayer
        return kind(layer, cached)
