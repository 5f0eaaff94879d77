"""MPT: fused projection, perhaps clipped, and linear biases."""

from torch import Tensor

from .adapter import Adapter, heads_apart
from .alibi import mpt_slopes


class MptAdapter(Adapter):
    """Stands in for the attention of MPT."""

    def forward(
        self,
        hidden_states: Tensor,
        position_bias: Tensor,
        past_key_values: object = None,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Output of the attention, [batch, new, hidden]."""
        own = self.original
        fused = self.parts.Wqkv(hidden_states)
        if own.clip_qkv:
            fused = fused.clamp(-own.clip_qkv, own.clip_qkv)
        queries, keys, values = (heads_apart(each, own.n_heads) for each in fused.chunk(3, -1))
        mixed = self.attention(
            (queries, keys, values),
            past_key_values,
            # the model's mask says what is hidden
            None if attention_mask is None else ~attention_mask,
            scaling=own.softmax_scale,
            dropout=own.attn_dropout_p,
            slopes=mpt_slopes(own.n_heads, _LARGEST, fused.device),
        )
        output: Tensor = self.parts.out_proj(mixed)
        return output, None


_LARGEST = 8  # the model does not read `alibi_bias_max`
