"""GPT-NeoX Japanese: fused projection, partial rotation, and a bias that the block adds."""

from functools import partial

from torch import Tensor

from .adapter import Adapter
from .fused import grouped_heads
from .rotating import turn_halves


class GPTNeoXJapaneseAdapter(Adapter):
    """Stands in for the attention of GPT-NeoX Japanese."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        layer_past: object = None,
        use_cache: bool | None = False,
        output_attentions: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: object,
    ) -> tuple[Tensor, None, Tensor | None]:
        """Output of the attention, [batch, new, hidden], and the bias that goes with it."""
        assert position_embeddings is not None, "the model computes them for all layers"
        own = self.original
        fused = self.parts.query_key_value(hidden_states)
        queries, keys, values = grouped_heads(fused, own.num_attention_heads, own.head_size)
        turn = partial(turn_halves, embeddings=position_embeddings)
        mixed = self.attention(
            (turn(queries), turn(keys), values),
            layer_past,
            attention_mask,
            scaling=own.head_size**-0.5,
            dropout=self.parts.attention_dropout.p,
        )
        return self.parts.dense(mixed), None, own.dense_bias
