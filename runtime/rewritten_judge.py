"""What the heuristic is shown of a layer whose keys and values the model rewrites."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from kvbudget.heuristics import LayerView, checked_scores

from .attention_call import AttentionCall
from .eviction import select
from .judge import Judge, held_tokens
from .padded_tokens import PaddedTokens


class RewrittenJudge(Judge):
    """Shows the keys and values that the model made of what it stores, and scores whole tokens.

    A token's score is the mean over the heads. It is stored with the heuristic's memory, for the
    times when tokens have to go and none has been made.
    """

    _made: tuple[Tensor, Tensor] | None = None
    _scores: Tensor | None = None

    @contextmanager
    def judging_by(self, call: AttentionCall) -> Iterator[None]:
        """Judge by the keys and values of an attention call, [batch, heads, tokens, dim]."""
        self._made = (call.keys.detach(), call.values.detach())
        try:
            yield
        finally:
            self._made = self._scores = None

    def meet(self, call: AttentionCall) -> None:
        """Take note of a prompt's queries, and of how many heads were made."""
        super().meet(call)
        self.channels = self.memory * self._seen()[0].shape[1] + 1

    def shown(self, tokens: PaddedTokens, next_column: int, remember: int = 0) -> LayerView:
        """What the heuristic sees; the tokens are scored at once."""
        view = super().shown(tokens, next_column, remember)
        self._scores = checked_scores(self.heuristic, view).mean(1, keepdim=True)
        return view

    def keep(self, view: LayerView, reach: Tensor, capacities: Tensor) -> Tensor:
        """What stays, the same in all heads, [batch, 1, tokens]."""
        if bool((held_tokens(reach) <= capacities).all()):
            return reach
        return select(self._scored(), reach, capacities)

    def state(self, view: LayerView) -> Tensor:
        """The heuristic's memory of all heads side by side, and the score behind it."""
        memory = view.known_state(self.memory).transpose(1, 2).flatten(2)[:, None]
        return torch.cat([memory, self._scored()[..., None]], -1)

    def _view(self, tokens: PaddedTokens, next_column: int) -> LayerView:
        keys, values = self._seen()
        heads = keys.shape[1]
        memory = tokens.state[:, 0, :, :-1].unflatten(2, (heads, self.memory)).transpose(1, 2)
        made = replace(
            tokens,
            keys=keys,
            values=values,
            positions=tokens.positions.expand(-1, heads, -1),
            valid=tokens.valid.expand(-1, heads, -1),
            state=memory,
        )
        view = super()._view(made, next_column)
        return view if self.memory else replace(view, state=None)

    def _scored(self) -> Tensor:
        assert self._scores is not None, "tokens are scored when they are shown"
        return self._scores

    def _seen(self) -> tuple[Tensor, Tensor]:
        assert self._made is not None, "rewritten tokens are judged while they attend"
        return self._made
