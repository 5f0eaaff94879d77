"""GPT-J: neighbouring numbers of a head are rotated against each other."""

from torch import Tensor

from .adapter import Adapter, heads_apart
from .rotating import turn_neighbours


class GPTJAdapter(Adapter):
    """Stands in for the attention of GPT-J."""

    def forward(
        self,
        hidden_states: Tensor,
        layer_past: object = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Output of the attention, [batch, new, hidden]."""
        own, heads = self.original, self.original.num_attention_heads
        sines = self.parts.embed_positions.to(hidden_states.device)[position_ids]
        queries, keys, values = (
            heads_apart(project(hidden_states), heads)
            for project in (self.parts.q_proj, self.parts.k_proj, self.parts.v_proj)
        )
        stored = turn_neighbours(queries, sines), turn_neighbours(keys, sines), values
        mixed = self.attention(
            stored,
            layer_past,
            attention_mask,
            scaling=own.head_dim**-0.5,
            dropout=self.parts.attn_dropout.p,
        )
        output: Tensor = self.parts.resid_dropout(self.parts.out_proj(mixed))
        return output, None
