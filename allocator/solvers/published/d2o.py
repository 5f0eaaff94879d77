"""Layers by how evenly they attend: the flatter, the more.

Reference: Wan et al., ICLR 2025. https://arxiv.org/abs/2406.13035
"""

from dataclasses import dataclass, field

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.checks import as_int
from kvbudget.allocator.layers import layer_of_units, mean_in_layers
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import (
    Importance,
    check_importance,
    layer_importance,
    of_units,
)
from kvbudget.allocator.sharing.ranges import check_range
from kvbudget.allocator.sharing.shares import divide
from kvbudget.allocator.sharing.token_weights import TokenWeights
from kvbudget.allocator.solver import Choice, Solver

# its exponential is far below any share that is left of a byte, but not 0
LEAST_LOGARITHM = -700.0


@dataclass(frozen=True, slots=True)
class D2O(Solver):
    """Keep some layers whole and divide the rest of the budget by a softmax over the others.

    The first two layers and the last stay whole. Every other layer ``l`` gets a share of what is
    left in proportion to

        exp(-u[l]) * whole[l]

    with the bytes ``whole`` of a whole cache and the variance ``u`` of its attention per token,
    scaled to 0..1 over all caches and averaged over the layer's. No cache gets less than
    ``least_share`` of itself. All caches of a layer are equal, up to one level of the menu, and
    but for caches that a smaller level serves as well.

    The formula is the published one. The original does not count the whole layers in its budget.
    Here they count: where the budget is too small for them, they share what the lowest levels of
    the others leave. It takes the variance of attention summed over queries; with the default
    signal this is a reconstruction. The merging of evicted tokens is not a matter of budgets.

    Args:
        whole_layers: Layers that stay whole; negative numbers count from the last. Those that a
            problem does not have are left out.
        least_share: Least bytes of a cache over those of the whole cache, in 0..1.
        importance: Logarithm of the share of each layer, [layers], or of each cache, [layers,
            kv_heads], of which each layer takes the mean; at least 0, so pass ``1 - u``. By default
            ``u`` is the variance of the loss that each step of a curve removes, shared by the
            step's tokens.

    Reference:
        Wan et al., "D2O: Dynamic Discriminative Operations for Efficient Long-Context Inference of
        Large Language Models", ICLR 2025. https://arxiv.org/abs/2406.13035
    """

    whole_layers: tuple[int, ...] = (0, 1, -1)
    least_share: float = 0.01
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        whole = tuple(as_int("whole_layers", each) for each in self.whole_layers)
        object.__setattr__(self, "whole_layers", whole)
        check_range("least_share", self.least_share, 0.0, 1.0)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Fill the whole layers first, then divide what is left among the others."""
        layers = problem.shape[0]
        kept = {layer % layers for layer in self.whole_layers if -layers <= layer < layers}
        whole = [layer in kept for layer in layer_of_units(problem).tolist()]
        sizes = problem.cost_bytes[:, -1].tolist()
        ratio = of_units(problem, self._ratio(problem))
        levels = divide(
            problem,
            [size if first else 0 for size, first in zip(sizes, whole, strict=True)],
            then=[a * b for a, b in zip(ratio, sizes, strict=True)],
            least_bytes=[int(self.least_share * size) for size in sizes],
        )
        return Choice(levels)

    def _ratio(self, problem: Problem) -> Floats:
        """Kept part of each layer's caches, relative to the largest, [layers]."""
        if self.importance is None:
            logarithm = 1.0 - scaled_variance(problem)
        else:
            logarithm = layer_importance(problem, self.importance)
        ratio: Floats = np.exp(np.maximum(logarithm - logarithm.max(), LEAST_LOGARITHM))
        return ratio


def scaled_variance(problem: Problem) -> Floats:
    """Variance of the weights of tokens, from 0 to 1 over all caches, [layers]: layers' means."""
    variance = TokenWeights.of(problem).variance()
    above = variance - variance.min()
    return mean_in_layers(problem, above / (above.max() or 1.0))
