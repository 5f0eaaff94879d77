"""Which tokens are kept: token heuristics under the names of their papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvbudget.heuristics import (
    A2SF,
    Corm,
    HeavyHitter,
    Keyformer,
    KVZip,
    ObservationWindow,
    RunningHeuristic,
    SinkRecent,
    TokenHeuristic,
)

if TYPE_CHECKING:
    from torch import Tensor

    from kvbudget.heuristics import LayerView


@dataclass(frozen=True, slots=True)
class NewestFirst(RunningHeuristic):
    """Keep the newest tokens before all others, and the rest by another heuristic.

    Args:
        base: Scores the others; with one number per token.
        tokens: How many of the newest come first.
    """

    base: RunningHeuristic = HeavyHitter()  # noqa: RUF009
    tokens: int = 64

    def observe(self, view: LayerView) -> Tensor:
        """Update what the other heuristic remembers, [batch, kv_heads, tokens, 1]."""
        return self.base.observe(view)

    def score(self, view: LayerView) -> Tensor:
        """Score as the other does, the newest above all, [batch, kv_heads, tokens]."""
        score, age = self.base.score(view), view.age()
        highest = score.masked_fill(~view.valid, -torch.inf).amax(dim=-1, keepdim=True)
        return torch.where(age < self.tokens, highest + self.tokens - age, score)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A token heuristic under the name that tables show.

    Args:
        name: Name of the paper, and what was set.
        heuristic: The heuristic.
        newest: Share of the kept tokens that are the newest ones, for running heuristics; 0 leaves
            the heuristic as it is.
    """

    name: str
    heuristic: TokenHeuristic
    newest: float = 0.0

    def built(self, capacity_tokens: int) -> TokenHeuristic:
        """The heuristic for caches of this capacity."""
        if not self.newest:
            return self.heuristic
        assert isinstance(self.heuristic, RunningHeuristic)
        return NewestFirst(self.heuristic, round(self.newest * capacity_tokens))


STREAMING = Tokens("StreamingLLM", SinkRecent())
H2O = Tokens("H2O", HeavyHitter())
H2O_WITH_WINDOW = Tokens("H2O, half of them newest", HeavyHitter(), 0.5)
H2O_SHORT_WINDOW = Tokens("H2O, 30 % of them newest", HeavyHitter(), 0.3)
KEYFORMER = Tokens("Keyformer", Keyformer())
KEYFORMER_WITH_WINDOW = Tokens("Keyformer, 30 % of them newest", Keyformer(), 0.3)
A2SF_LEAST = Tokens("A2SF, forgetting 0.1", A2SF(0.1))
A2SF_MOST = Tokens("A2SF, forgetting 0.5", A2SF(0.5))
CORM = Tokens("CORM", Corm())
SNAPKV = Tokens("SnapKV", ObservationWindow())
KVZIP = Tokens("KVzip", KVZip())
SNAPKV_WIDE = Tokens("SnapKV, pooling over 15", ObservationWindow(kernel=15))
