"""Attention that a token gets from its neighbourhood on both sides.

Reference:
    Chari and Van Durme, "Compactor: Calibrated Query-Agnostic KV Cache Compression with
    Approximate Leverage Scores", 2025. https://arxiv.org/abs/2507.08143
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kvbudget.kernels.attention import attention_logits, chunks, masked_softmax

from ..draws import oldest_column
from ..heuristic import RunningHeuristic
from ..neighbours import mean_nearby
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView

EMPTY = torch.iinfo(torch.int64).max
"""Chunk of a place without a token."""


@register("non_causal_attention")
@dataclass(frozen=True, slots=True)
class NonCausalAttention(RunningHeuristic):
    """Score a token by the attention of its chunk times its value's norm, averaged with neighbours.

    The text is cut into chunks, counted from the first held token; every query attends to all
    tokens of its own chunk, later ones too. So no token profits from being early, and the cost is
    linear in the tokens. Together with `Leverage` this is Compactor; its authors standardise both
    over the tokens of a layer and add them.

    Chari and Van Durme score a prompt once. Here the attention is added up: tokens keep what the
    prompt gave them, and queries of decoded tokens add to their chunk. A query can look ahead
    only as far as its block reaches, so a chunk that is read in several blocks, as always while
    decoding, gets a little less attention between them. A sliding window, a cap on the logits,
    linear biases and learned sinks are left out.

    Args:
        chunk: Tokens of a chunk. kvpress, with the first author's code, uses 256.
        kernel: Width of the averaging over tokens, odd. The authors' code uses 3; 1 is none.
        scaled: Whether logits are scaled as in the model. The authors' code does not scale them,
            which makes attention sharper.
    """

    looks_ahead: ClassVar[bool] = True

    chunk: int = 256
    kernel: int = 3
    scaled: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.chunk < 1:
            raise ValueError(f"`chunk` must be at least 1, but got chunk={self.chunk}.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd and at least 1, but got kernel={self.kernel}.")

    def observe(self, view: LayerView) -> Tensor:
        """Add the attention of the new queries, [batch, kv_heads, tokens, 1]."""
        order = view.packed_order()
        start, tokens = oldest_column(view), order.shape[-1]
        of_query = (view.query_positions - start) // self.chunk  # negative for padding
        of_token = ((view.positions - start) // self.chunk).masked_fill(~view.valid, EMPTY)
        of_token = of_token.gather(-1, order)
        keys = view.held_keys().gather(2, order.unsqueeze(-1).expand_as(view.keys))
        mass = torch.zeros_like(keys[..., 0])
        near = torch.arange(min(2 * self.chunk, tokens), device=order.device)
        for rows in chunks(view.new, self.chunk):
            # so few queries touch two chunks at most, which stand next to each other
            asked = of_query[..., rows]
            place = (of_token < asked[..., :1]).sum(dim=-1, keepdim=True) + near
            inside, place = (place < tokens).unsqueeze(2), place.clamp_max(tokens - 1)
            seen = asked.unsqueeze(3) == of_token.gather(-1, place).unsqueeze(2)
            nearby = keys.gather(2, place.unsqueeze(-1).expand(-1, -1, -1, keys.shape[-1]))
            mass.scatter_add_(-1, place, self._attention(view, rows, nearby, seen & inside))
        spread = torch.empty_like(mass).scatter_(-1, order, mass)
        return view.known_state(self.channels) + spread.unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by pooled attention times norm, [batch, kv_heads, tokens]."""
        mass = view.known_state(self.channels)[..., 0]
        worth = mass * view.held_values().norm(dim=-1)
        return mean_nearby(worth, view.valid, self.kernel)

    def _attention(self, view: LayerView, rows: slice, keys: Tensor, seen: Tensor) -> Tensor:
        """Attention of some queries to some keys, summed over the queries.

        Args:
            view: What holds the queries.
            rows: Which of them.
            keys: [batch, kv_heads, keys, head_dim].
            seen: Which key each query attends to, bool, [batch, kv_heads, rows, keys].

        Returns:
            Mean over the group, [batch, kv_heads, keys].
        """
        queries = view.queries[:, :, rows].unflatten(1, (-1, view.group))
        scaling = view.scaling if self.scaled else 1.0
        logits = attention_logits(queries.flatten(2, 3), keys, scaling=scaling, softcap=None)
        attention = masked_softmax(logits.unflatten(2, queries.shape[2:4]), seen.unsqueeze(2), None)
        return attention.mean(dim=2).sum(dim=2)
