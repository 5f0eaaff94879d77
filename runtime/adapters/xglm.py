"""XGLM: an ordinary decoder whose attention is written out."""

from typing import Any

from torch import Tensor

from .adapter import Adapter, heads_apart


class XGLMAdapter(Adapter):
    """Stands in for the attention of XGLM to its own tokens."""

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        past_key_values: object = None,
        attention_mask: Tensor | None = None,
        **keywords: Any,
    ) -> tuple[Any, ...]:
        """Output of the attention, [batch, new, hidden]."""
        own = self.original
        if key_value_states is not None:  # attention to an encoder is no business of ours
            output: tuple[Any, ...] = own(
                hidden_states, key_value_states, past_key_values, attention_mask, **keywords
            )
            return output
        stored = (
            heads_apart(self.parts.q_proj(hidden_states), own.num_heads),
            heads_apart(self.parts.k_proj(hidden_states), own.num_heads),
            heads_apart(self.parts.v_proj(hidden_states), own.num_heads),
        )
        mixed = self.attention(
            stored, past_key_values, attention_mask, scaling=own.scaling, dropout=own.dropout
        )
        return self.parts.out_proj(mixed), None
