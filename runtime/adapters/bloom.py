"""Bloom: fused projection, linear biases, and the residual added by the attention itself."""

from torch import Tensor
from torch.nn import functional

from .adapter import Adapter
from .alibi import bloom_slopes
from .fused import grouped_heads


class BloomAdapter(Adapter):
    """Stands in for the attention of Bloom."""

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None = None,
        layer_past: object = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """The residual stream with the output of the attention, [batch, new, hidden]."""
        own = self.original
        fused = self.parts.query_key_value(hidden_states)
        mixed = self.attention(
            grouped_heads(fused, own.num_heads, own.head_dim),
            layer_past,
            attention_mask,
            scaling=own.inv_norm_factor,
            dropout=self.parts.attention_dropout.p,
            slopes=bloom_slopes(own.num_heads, fused.device),
        )
        dropped = functional.dropout(self._output(mixed), own.hidden_dropout, self.training)
        return residual + dropped, None

    def _output(self, mixed: Tensor) -> Tensor:
        if self.original.pretraining_tp > 1 and self.original.slow_but_exact:
            # the model then adds up slices of the projection, and leaves out its bias
            return functional.linear(mixed, self.parts.dense.weight)
        output: Tensor = self.parts.dense(mixed)
        return output
