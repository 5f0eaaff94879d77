"""Layers by the entropy of their scores, heads by the top tokens of a layer.

Reference: Shen et al., 2025. https://arxiv.org/abs/2509.09754
"""

from dataclasses import dataclass, field

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.head_step import divide_layers
from kvbudget.allocator.sharing.importance import Importance, check_importance, layer_importance
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.token_weights import TokenWeights
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class LAVa(Solver):
    """Divide the budget over layers by normalised entropy and over heads by the top tokens.

    Beyond the window of every cache, layer ``l`` gets the share

        e[l] / sum(e)

    of the budget, where ``e`` is the entropy of the scores of all its tokens over the logarithm of
    their number. Inside a layer the division is that of ``AdaKV`` with the safeguard ``alpha``,
    relative to the layer's own budget, as in the paper; the released code keeps the safeguard of
    an equal division.

    The formula is the published one. The original's scores are attention weights times the largest
    value norm of the head. Here the top tokens are always read from the curves, and so is the
    entropy by default, which makes this a reconstruction.

    Args:
        alpha: Share of a layer's budget that its caches get alike, in 0..1.
        window_tokens: Tokens that every cache keeps before any is won. In a problem without an
            origin the lowest levels stand in for them.
        importance: Normalised entropy of each layer's scores, [layers], or of each cache's,
            [layers, kv_heads], of which each layer takes the mean. By default that of the loss that
            each step of a curve removes, shared by the step's tokens; tokens that the lowest level
            keeps do not count, because the curves do not show them.

    Reference:
        Shen et al., "LAVa: Layer-wise KV Cache Eviction with Dynamic Budget Allocation", 2025.
        https://arxiv.org/abs/2509.09754
    """

    alpha: float = 0.2
    window_tokens: int = 32
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("alpha", self.alpha, 0.0, 1.0)
        check_tokens("window_tokens", self.window_tokens)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Give layers shares by entropy and let their heads compete."""
        if self.importance is None:
            shares = normalised_entropy(problem)
        else:
            shares = layer_importance(problem, self.importance)
        return Choice(divide_layers(problem, shares.tolist(), self.alpha, self.window_tokens))


def normalised_entropy(problem: Problem) -> Floats:
    """Entropy of the tokens of each layer over that of equal weights, [layers], in 0..1."""
    weights = TokenWeights.of(problem).joined(problem)
    tokens = weights.tokens.sum(axis=1)
    # one token alone has no entropy, whatever it is divided by
    normalised: Floats = weights.entropy() / np.log(np.maximum(tokens, 2.0))
    return normalised
