"""GPT-Neo: logits are not scaled, and every other layer sees a window that it cuts itself."""

from torch import Tensor

from .adapter import Adapter, heads_apart
from .masks import windowed


class GPTNeoAdapter(Adapter):
    """Stands in for the attention of GPT-Neo."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        layer_past: object = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Output of the attention, [batch, new, hidden]."""
        own = self.original
        stored = (
            heads_apart(self.parts.q_proj(hidden_states), own.num_heads),
            heads_apart(self.parts.k_proj(hidden_states), own.num_heads),
            heads_apart(self.parts.v_proj(hidden_states), own.num_heads),
        )
        window = own.config.window_size if own.attention_type == "local" else None
        mixed = self.attention(
            stored,
            layer_past,
            attention_mask if window is None else windowed(attention_mask, window),
            scaling=1.0,
            dropout=self.parts.attn_dropout.p,
            window=window,
        )
        output: Tensor = self.parts.resid_dropout(self.parts.out_proj(mixed))
        return output, None

    @property
    def layer(self) -> int:
        """Number of the layer in the cache."""
        return int(self.original.layer_id)
