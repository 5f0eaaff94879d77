"""A layer whose attention needs more than positions to know what a query may see."""

import torch
from torch import Tensor

from .attention_call import AttentionCall
from .budgeted_layer import BudgetedLayer
from .padded_tokens import PaddedTokens
from .rectangle import rectangle_attention


class RectangleLayer(BudgetedLayer):
    """Holds tokens as any layer does, and spreads them into a rectangle whenever they attend.

    The rectangle is a transient of one layer: more memory moves at each step than where ragged
    attention serves, but none of it is held.
    """

    @torch.inference_mode(False)
    def attend(self, call: AttentionCall) -> Tensor:
        """Attention of tokens after the prompt over all that is held and themselves.

        Returns:
            [batch, new, heads, value_dim].
        """
        self.judge.remember(call.queries)
        output = self.attend_again(call)
        if not self._in_tail:
            self._absorb_block(call)
        self.is_pending = False
        return output

    @torch.inference_mode(False)
    def attend_again(self, call: AttentionCall) -> Tensor:
        """The same without taking note of the tokens."""
        # where chunks begin stands in the mask alone
        window = None if self.cached.is_chunked else self.window
        tokens = self._rectangle(call.keys.detach(), call.values.detach())
        return rectangle_attention(call, tokens, window)

    def _rectangle(self, keys: Tensor, values: Tensor) -> PaddedTokens:
        """All tokens held, the new ones among them."""
        return self.held().padded() if self._in_tail else self._with_block(keys, values)

    def _limits(
        self, batch: int, seen_tokens: int, next_column: int
    ) -> tuple[Tensor, int | Tensor]:
        """Where there are chunks, what lies before the next token's chunk is out of reach."""
        capacities, reach_from = super()._limits(batch, seen_tokens, next_column)
        if not self.cached.is_chunked or (isinstance(reach_from, int) and reach_from == 0):
            return capacities, reach_from
        assert self.window is not None, "chunks have a size"
        # they begin at the first column that is no padding
        padding = torch.zeros(1, dtype=torch.long)
        if self._real is not None:
            padding = (~self._real).sum(1)
        start = padding + (next_column - padding) // self.window * self.window
        return capacities, start[:, None, None]
