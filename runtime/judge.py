"""What the heuristic of one layer is shown, and what has to be remembered for it."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from kvbudget.heuristics import (
    LayerView,
    RereadingHeuristic,
    Rotation,
    RunningHeuristic,
    TokenHeuristic,
    checked_scores,
    observed,
)

from .attention_call import AttentionCall, LogitRules
from .eviction import select
from .output_projection import Borrowed, output_weight
from .padded_tokens import PaddedTokens
from .recent_queries import RecentQueries


class Judge:
    """Asks the heuristic which tokens of one layer stay.

    Args:
        index: Layer number.
        heuristic: Scores the tokens whenever some have to go.
        window: Sliding window in tokens, None for full attention.
        rotation: How the model rotates queries and keys, None if it does not.

    Attributes:
        memory: Numbers per token that the heuristic keeps.
        channels: Numbers per token that are stored for it.
        rules: What the layer applies to its logits.
        recent: The newest queries.
        prompt_columns: Columns of the prompt, None if what followed was as long.
        foretold: What a second reading told of the next prompt.
    """

    def __init__(
        self, index: int, heuristic: TokenHeuristic, window: int | None, rotation: Rotation | None
    ) -> None:
        self.heuristic = heuristic
        self.memory = heuristic.channels if isinstance(heuristic, RunningHeuristic) else 0
        self.channels = self.memory
        self._index, self._window, self._rotation = index, window, rotation
        self._attention: Borrowed | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.rules = LogitRules(1.0)
        self.recent = RecentQueries()
        self.prompt_columns: int | None = None
        self.foretold: Tensor | None = None
        self.heads = 0

    def borrow(self, attention: nn.Module) -> None:
        """Take note of the layer's attention module, if the heuristic asks for its weights."""
        if self.heuristic.reads_output_weight:
            self._attention = Borrowed(attention)

    def meet(self, call: AttentionCall) -> None:
        """Take note of a prompt's queries and of the module that reads it."""
        # sinks of each query are not remembered with it; the heuristic then judges without them
        known = None if call.has_own_logits else call.rules.sinks
        sinks = None if known is None else known.detach()
        self.rules, self.heads = replace(call.rules, sinks=sinks), call.queries.shape[1]
        self.borrow(call.module)
        self.remember(call.queries)

    def remember(self, queries: Tensor) -> None:
        """Take note of newer queries, if the heuristic asks for any."""
        if self.heuristic.reads_queries:
            self.recent.append(queries)

    def with_foretold(self, tokens: PaddedTokens) -> PaddedTokens:
        """The tokens of a prompt with what a second reading told of them, if there was one.

        Raises:
            ValueError: The heuristic needs one.
        """
        if not isinstance(self.heuristic, RereadingHeuristic):
            return tokens
        self.recent.settle()  # those of the first reading do not count
        state, self.foretold = self.foretold, None
        if state is None or state.shape[:3] != tokens.valid.shape:
            raise ValueError(
                f"{type(self.heuristic).__name__} lets the model read the prompt twice, but it was "
                "not asked to. Call the model that was given to budgeted(), not a part of it."
            )
        return replace(tokens, state=state)

    def shown(self, tokens: PaddedTokens, next_column: int, remember: int = 0) -> LayerView:
        """What the heuristic sees, the newest queries counted in its state.

        Args:
            tokens: What is held.
            next_column: Column of the next token.
            remember: Fewest queries to remember from then on.
        """
        view = self._view(tokens, next_column)
        unseen = view.newest(self.recent.unseen)
        view = replace(view, state=observed(self.heuristic, unseen).state)
        self.recent.settle(remember)
        return view

    def keep(self, view: LayerView, reach: Tensor, capacities: Tensor) -> Tensor:
        """What stays; tokens out of reach go, but earlier queries did see them while scoring.

        Args:
            view: What the heuristic sees.
            reach: Tokens that may still be seen, [batch, kv_heads, tokens], bool.
            capacities: Room of each cache, [batch or 1, kv_heads].
        """
        if bool((held_tokens(reach) <= capacities).all()):
            return reach
        return select(self.scores(view), reach, capacities)

    def scores(self, view: LayerView) -> Tensor:
        """Score of each token, [batch, kv_heads, tokens]."""
        return checked_scores(self.heuristic, view)

    def state(self, view: LayerView) -> Tensor:
        """What is to be stored of the heuristic's memory, [batch, kv_heads, tokens, channels]."""
        return view.known_state(self.channels)

    def output_weight(self) -> Tensor | None:
        """Output projection by head, if the heuristic reads it, [heads, value_dim, hidden]."""
        if self._attention is None:
            return None
        return output_weight(self._attention.module, self.heads)

    def _view(self, tokens: PaddedTokens, next_column: int) -> LayerView:
        queries = tokens.keys.new_empty(len(tokens.keys), self.heads, 0, tokens.keys.shape[-1])
        if self.recent.holds_any:
            queries = self.recent.all()
        columns = torch.arange(next_column - queries.shape[2], next_column, device=queries.device)
        return LayerView(
            layer=self._index,
            keys=tokens.keys,
            values=tokens.values,
            valid=tokens.valid,
            positions=tokens.positions,
            queries=queries,
            query_positions=columns,
            scaling=self.rules.scaling,
            window=self._window,
            softcap=self.rules.softcap,
            sinks=self.rules.sinks,
            slopes=self.rules.slopes,
            state=tokens.state if self.channels else None,
            prompt_columns=self.prompt_columns,
            rotation=self._rotation,
            output_weight=self.output_weight(),
        )


def held_tokens(valid: Tensor) -> Tensor:
    """Tokens each cache holds, [batch, kv_heads], on the CPU."""
    return valid.sum(-1).cpu()
