"""A layer's share, divided over its heads by the scores of the prompt.

Ada-KV bounds the error of a layer's output; the bound falls by the attention that is kept,
whichever head keeps it. So the best tokens of all heads of a layer are kept together, and each head
gets as many places as it owns of them.

Feng et al. mix the head's share of winners with equal shares and round it, which changes the sum.
Here the safeguard is a limit instead: a head keeps at least a part of its planned capacity, and
under that limit no division of the layer's places keeps more.

The prompt alone does not tell what will be asked about it. Where the plan holds the curves of its
heads, the division is therefore that of `Global` among the heads of the layer; with all the trust
in the prompt it is Ada-KV again.

Reference:
    Feng et al., "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient
    LLM Inference", NeurIPS 2025. https://arxiv.org/abs/2407.11550
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .adaptation import Adaptation, LayerScores, check_share
from .gains import gains_in_order
from .places import hand_out, in_order, queue_of


@dataclass(frozen=True, slots=True)
class WithinLayer(Adaptation):
    """Keep the best tokens of all heads of a layer; the layer's sum stays the plan's.

    Where scores of different heads are compared as they are, the heuristic has to score them on
    one scale, as attention weights do. Every head keeps its protected tokens (sinks and recent
    ones), or its planned capacity if that is less.

    Args:
        floor: Share of its planned capacity that every head keeps at least, from 0 to 1. Feng et
            al. use 0.2.
        trust: Weight of the prompt against the profile, from 0 (the profile's curves alone) to
            1 (the prompt alone, by its scores as they are: Ada-KV). A plan that does not hold its
            curves leaves the prompt alone.

    Raises:
        TypeError: If a share is not a number.
        ValueError: If a share is not from 0 to 1.
    """

    sees_all_layers: ClassVar[bool] = False

    floor: float = 0.2
    trust: float = 0.5

    def __post_init__(self) -> None:
        """Check the shares."""
        check_share("floor", self.floor)
        check_share("trust", self.trust)

    def divide(self, layers: Sequence[LayerScores]) -> list[Tensor]:
        """Divide each layer by itself."""
        return [self._divided(layer) for layer in layers]

    def _divided(self, layer: LayerScores) -> Tensor:
        queue = queue_of(layer, self._gains(layer), self.floor)
        one_each = layer.scores.new_ones(layer.scores.shape[1], dtype=queue.floor.dtype)
        return hand_out(queue, one_each).cpu()

    def _gains(self, layer: LayerScores) -> Tensor:
        """What each token is kept for, best first, [batch, kv_heads, tokens], float32."""
        if layer.expected is None or self.trust == 1:
            return in_order(layer, layer.scores)
        expected = layer.expected.to(layer.scores.device)
        return gains_in_order(layer, expected, self.trust).float()
