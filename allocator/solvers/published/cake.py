"""Layers by how widely and how changeably they attend.

Reference: Qin et al., ICLR 2025. https://arxiv.org/abs/2503.12491
"""

from dataclasses import dataclass, field

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.layers import sum_in_layers, units_in_layers
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import Importance, check_importance, of_units, per_cache
from kvbudget.allocator.sharing.ranges import check_range, check_tokens
from kvbudget.allocator.sharing.shares import beyond, divide
from kvbudget.allocator.sharing.token_bytes import bytes_of_tokens, in_tokens
from kvbudget.allocator.sharing.token_weights import TokenWeights
from kvbudget.allocator.solver import Choice, Solver

LEAST_TAU = 1e-3


@dataclass(frozen=True, slots=True)
class CAKE(Solver):
    """Divide the budget over layers in proportion to entropy and variance of attention.

    Beyond the window of every cache, layer ``l`` gets a share in proportion to its preference

        H[l] ** (1 / tau1) * V[l] ** (1 / tau2)

    with the entropy ``H`` of its attention, summed over heads, and the variance ``V`` of the
    attention over the queries of the window. All caches of a layer are equal, up to one level of
    the menu, and but for caches that a smaller level serves as well.

    The formula is the published one. The original computes it layer by layer while it reads the
    prompt, which ends at the same division, and searches both exponents per model and budget; 1
    for both is the neutral choice. Without measured numbers for both ``importance`` and
    ``variance`` this is a reconstruction: curves only tell how loss lies over tokens, and not how
    attention changes from query to query.

    Args:
        tau1: The larger, the less entropy counts; at least 0.001.
        tau2: The larger, the less variance counts; at least 0.001.
        window_tokens: Tokens that every cache gets besides. In a problem without an origin the
            lowest levels stand in for them.
        importance: Entropy of each layer's attention, [layers], or of each cache's, [layers,
            kv_heads], summed over them. By default that of the loss that each step of a cache's
            curve removes, shared by the step's tokens.
        variance: Variance over queries of each layer's attention, [layers], or of each cache's,
            [layers, kv_heads]. By default 1 for all.

    Reference:
        Qin et al., "CAKE: Cascading and Adaptive KV Cache Eviction with Layer Preferences", ICLR
        2025. https://arxiv.org/abs/2503.12491
    """

    tau1: float = 1.0
    tau2: float = 1.0
    window_tokens: int = 32
    importance: Importance | None = field(default=None, repr=False)
    variance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("tau1", self.tau1, LEAST_TAU)
        check_range("tau2", self.tau2, LEAST_TAU)
        check_tokens("window_tokens", self.window_tokens)
        for name in ("importance", "variance"):
            object.__setattr__(self, name, check_importance(getattr(self, name), name))

    def choose(self, problem: Problem) -> Choice:
        """Round the shares to levels."""
        window = bytes_of_tokens(problem, self.window_tokens)
        shares = of_units(problem, self._preference(problem))
        wanted = beyond(window, problem.budget_bytes, in_tokens(problem, shares))
        return Choice(divide(problem, wanted))

    def _preference(self, problem: Problem) -> Floats:
        """Preference of each layer, [layers], 1 for the largest factors."""
        if self.importance is None:
            entropy = TokenWeights.of(problem).entropy()
        else:
            entropy = per_cache(problem, self.importance)
        preference = relative(problem, entropy) ** (1 / self.tau1)
        if self.variance is None:
            return preference
        variance = per_cache(problem, self.variance, "variance")
        return preference * relative(problem, variance) ** (1 / self.tau2)


def relative(problem: Problem, each: Floats) -> Floats:
    """Sum over each layer's caches relative to the largest, [layers], in 0..1.

    Layers with fewer caches count as if they had as many as the others.
    """
    total = sum_in_layers(problem, each / (each.max() or 1.0))
    total = total * (problem.shape[1] / units_in_layers(problem))
    shares: Floats = total / (np.max(total) or 1.0)
    return shares
