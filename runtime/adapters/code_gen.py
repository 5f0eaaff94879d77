"""CodeGen: the rotation of GPT-J behind a projection that was laid out for four processors."""

from torch import Tensor

from .adapter import Adapter, heads_apart
from .rotating import turn_neighbours

_PROCESSORS = 4


class CodeGenAdapter(Adapter):
    """Stands in for the attention of CodeGen."""

    def forward(
        self,
        hidden_states: Tensor,
        layer_past: object = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Output of the attention, [batch, new, hidden]."""
        own, kind = self.original, hidden_states.dtype
        sines = self.parts.embed_positions.to(hidden_states.device)[position_ids]
        # each processor has queries, values and keys of its heads, in this order
        parts = self.parts.qkv_proj(hidden_states).unflatten(-1, (_PROCESSORS, 3, -1)).unbind(-2)
        queries, values, keys = (
            heads_apart(part.flatten(2), own.num_attention_heads) for part in parts
        )
        queries, keys = turn_neighbours(queries, sines), turn_neighbours(keys, sines)
        mixed = self.attention(
            (queries.to(kind), keys.to(kind), values),
            layer_past,
            attention_mask,
            scaling=own.head_dim**-0.5,
            dropout=self.parts.attn_dropout.p,
        )
        output: Tensor = self.parts.resid_dropout(self.parts.out_proj(mixed))
        return output, None
