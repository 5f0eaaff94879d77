"""What a cache heuristic sees of one layer: the view of its tokens and what the layer writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .attention import TOKENS_PER_CHUNK, chunks

if TYPE_CHECKING:
    from torch import Tensor

    from .layer_view import LayerView


@dataclass(frozen=True, slots=True, eq=False)
class CacheView:
    """One layer during a full forward pass over a prompt, nothing evicted.

    Args:
        layer: View of the layer that holds every token, and the queries of every token.
        residual: Residual stream before the attention block, [batch, tokens, hidden].
        output_weight: The part of the output projection that each query head writes through,
            [heads, value_dim, hidden].

    Raises:
        ValueError: If the view does not hold one query per token.
    """

    layer: LayerView
    residual: Tensor
    output_weight: Tensor

    def __post_init__(self) -> None:
        """Refuse a view that lacks queries."""
        new, tokens = self.layer.new, self.layer.valid.shape[-1]
        if new != tokens:
            raise ValueError(
                f"`layer` must hold one query per token, but got {new} queries for {tokens} "
                "tokens. Make the view in one forward pass over the whole prompt."
            )

    def outputs(self, chunk: int = 256) -> Tensor:
        """Attention output of every query head, before the output projection.

        Args:
            chunk: Queries treated at a time, so that memory is linear in tokens.

        Returns:
            Outputs, [batch, heads, tokens, value_dim], float32; 0 where a query sees nothing.
        """
        parts = [self._outputs(rows) for rows in chunks(self.layer.new, chunk)]
        return torch.cat(parts, dim=3).flatten(1, 2)

    def _outputs(self, rows: slice) -> Tensor:
        """[batch, kv_heads, group, rows, value_dim]."""
        probabilities = self.layer.probabilities(rows)
        shares = probabilities.flatten(2, 3)  # [batch, kv_heads, group * rows, tokens]
        outputs = shares.new_zeros(*shares.shape[:-1], self.layer.values.shape[-1])
        for part in chunks(shares.shape[-1], TOKENS_PER_CHUNK):
            # an empty slot may hold NaN, and 0 * NaN is NaN
            values = self.layer.values[:, :, part].float()
            values = values.masked_fill(~self.layer.valid[:, :, part, None], 0.0)
            outputs += shares[..., part] @ values
        return outputs.view(*probabilities.shape[:-1], -1)
