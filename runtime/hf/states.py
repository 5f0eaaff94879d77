"""Layers that keep a state besides their keys and values."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionCacheLayerMixin, LinearAttentionLayer

from .handoff import TaggingLayer


class StateKeeper(LinearAttentionLayer, TaggingLayer):  # type: ignore[misc, override]
    """Adds a layer's convolution and recurrent states, kept as transformers keeps them.

    To be put before another `TaggingLayer` in a list of base classes. Budgets say nothing about
    states: their size does not depend on the context.
    """

    is_compileable = False

    def lazy_initialization(self, *tensors: Tensor, **states: Any) -> None:  # type: ignore[override]
        """Transformers names states by keyword, and passes keys and values by place."""
        if tensors:
            super(LinearAttentionCacheLayerMixin, self).lazy_initialization(*tensors)
        else:
            super().lazy_initialization(**states)

    def reset(self) -> None:
        """Forget everything, the number of rows too."""
        LinearAttentionLayer.__init__(self, number_of_states=self.number_of_states)
        super(LinearAttentionCacheLayerMixin, self).reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams."""
        self._select_states(beam_idx)
        super(LinearAttentionCacheLayerMixin, self).reorder_cache(beam_idx)  # type: ignore[arg-type]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch."""
        self._select_states(indices)
        super(LinearAttentionCacheLayerMixin, self).batch_select_indices(indices)  # type: ignore[misc]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch."""
        states = [*self.conv_states.values(), *self.recurrent_states.values()]
        held = [state for state in states if state is not None]
        if held:
            self._select_states(torch.arange(len(held[0])).repeat_interleave(repeats))
        super(LinearAttentionCacheLayerMixin, self).batch_repeat_interleave(repeats)  # type: ignore[misc]

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest tokens; transformers can do that for convolution states only."""
        super().crop(tokens_to_remove)
        super(LinearAttentionCacheLayerMixin, self).crop(tokens_to_remove)  # type: ignore[misc]

    def _select_states(self, rows: Tensor) -> None:
        LinearAttentionLayer.reorder_cache(self, rows)  # type: ignore[arg-type]
