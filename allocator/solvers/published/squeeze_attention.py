"""Three groups of layers: the least important ones give memory to all others.

Reference: Wang et al., 2024. https://arxiv.org/abs/2404.04793
"""

from dataclasses import dataclass, field

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.clusters import cluster
from kvbudget.allocator.sharing.importance import (
    Importance,
    check_importance,
    layer_importance,
    of_units,
)
from kvbudget.allocator.sharing.ranges import check_range
from kvbudget.allocator.sharing.shares import divide
from kvbudget.allocator.sharing.token_bytes import in_tokens, layer_sizes, token_sizes
from kvbudget.allocator.solver import Choice, Solver

GROUPS = 3


@dataclass(frozen=True, slots=True)
class SqueezeAttention(Solver):
    """Shrink the caches of the least important layers, grow all others alike.

    Layers are clustered by importance with 3-means. With the mean bytes ``base`` of a cache and
    ``small`` of all ``layers`` in the group of least importance, every cache gets

        small_share * base                                        in that group
        (layers - small * small_share) / (layers - small) * base  in all others

    All caches of a layer are equal, up to one level of the menu, and but for caches that a smaller
    level serves as well.

    The formula is the published one. The original measures importance as 1 minus the cosine
    similarity of the residual stream before and after attention, anew for each prompt; with the
    default signal this is a reconstruction. Its k-means starts at random; here the best clusters
    are found exactly.

    Args:
        small_share: Bytes of a cache in the least important layers over those of an equal
            division. The paper reports 0.3 to 0.4 as good.
        importance: How much each layer changes the residual stream, [layers], or a number per
            cache, [layers, kv_heads], of which each layer takes the mean. By default the loss that
            memory can remove from the cache.

    Reference:
        Wang et al., "SqueezeAttention: 2D Management of KV-Cache in LLM Inference via Layer-wise
        Optimal Budget", 2024. https://arxiv.org/abs/2404.04793
    """

    small_share: float = 0.35
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("small_share", self.small_share, 0.0, 1.0)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Divide the budget in two sizes of caches."""
        group = cluster(layer_importance(problem, self.importance), GROUPS)
        if not group.any():
            return Choice(divide(problem, token_sizes(problem)))
        sizes = layer_sizes(problem)
        layers, small = len(group), float(sizes[group == 0].sum())
        large_share = (layers - small * self.small_share) / (layers - small)
        shares = (group == 0) * self.small_share + (group > 0) * large_share
        return Choice(divide(problem, in_tokens(problem, of_units(problem, shares))))
