"""Falcon: fused projection by groups of heads, with rotation or with linear biases."""

from torch import Tensor

from .adapter import Adapter
from .fused import grouped_heads
from .rotating import turn_halves


class FalconAdapter(Adapter):
    """Stands in for the attention of Falcon; keys and values are stored once per KV head."""

    def forward(
        self,
        hidden_states: Tensor,
        alibi: Tensor | None,
        attention_mask: Tensor | None,
        layer_past: object = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Output of the attention, [batch, new, hidden]."""
        own = self.original
        fused = self.parts.query_key_value(hidden_states)
        queries, keys, values = grouped_heads(fused, self._kv_heads(), own.head_dim)
        if alibi is None:
            assert position_embeddings is not None, "without linear biases it rotates"
            queries = turn_halves(queries, position_embeddings)
            keys = turn_halves(keys, position_embeddings)
        elif attention_mask is not None:
            # it holds the biases of every head as well, which are never negative
            attention_mask = attention_mask[:, :1] >= 0
        mixed = self.attention(
            (queries, keys, values),
            layer_past,
            attention_mask,
            scaling=own.inv_norm_factor,
            dropout=0.0 if alibi is None else self.parts.attention_dropout.p,
            bias=None if alibi is None else self._bias(alibi, queries),
        )
        output: Tensor = self.parts.dense(mixed)
        return output, None

    def _kv_heads(self) -> int:
        own = self.original
        if own.new_decoder_architecture:
            return int(own.num_kv_heads)
        return 1 if own.multi_query else int(own.num_heads)

    def _bias(self, alibi: Tensor, queries: Tensor) -> Tensor:
        """What the model adds to its logits, which its rounding keeps from being a straight line.

        Args:
            alibi: [batch * heads, 1, columns], or the same with batch and heads apart.
            queries: [batch, heads, new, head_dim].
        """
        own, (_, heads, new, _) = self.original, queries.shape
        # the model's eager attention adds them twice: to the logits, and with the mask
        times = 1 if own.config._attn_implementation == "sdpa" else 2
        per_column = alibi.view(-1, heads, 1, alibi.shape[-1])
        scaled: Tensor = per_column * (times * own.inv_norm_factor)
        return scaled.expand(-1, -1, new, -1)
