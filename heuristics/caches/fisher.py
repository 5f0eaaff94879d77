"""How much the predictions hang on a cache, to second order: the Fisher information of its gate.

Original in this use. Head pruning multiplies every head by a gate and takes the gate's gradient
for its importance; its mean square, with labels drawn from the model itself, is the curvature of
the Kullback-Leibler divergence along the gate.

Reference:
    Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019, for the gates.
    https://arxiv.org/abs/1905.10650
    Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", NeurIPS 2022, for
    the Fisher information of gates. https://arxiv.org/abs/2204.09656
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import torch

from ..cache_view import check_small_cache, mean_over
from ..heuristic import CacheHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cache_view import CacheView


class Lost(Enum):
    """What a cache is imagined to lose.

    Attributes:
        DISTANT: What only tokens give that are neither among the first nor among the latest.
        ALL: Its whole output, as in head pruning. Heads that look at the latest tokens only then
            weigh much, though a small cache serves them.
    """

    DISTANT = "distant"
    ALL = "all"


@register("fisher")
@dataclass(frozen=True, slots=True)
class Fisher(CacheHeuristic):
    """Weigh a cache by the divergence, to second order, when it loses its output.

        importance[kv_head] = 0.5 * mean_t mean_s (sum_h gradient[s, h, t] . lost[h, t])^2

    in nats per token, where ``h`` runs over the query heads of the KV head, ``t`` over all tokens
    and ``s`` over the label samples. Changes at different tokens are taken as independent, which
    pruning does not do: one gate serves all tokens there, here every token has its own.

    Args:
        lost: What a cache is imagined to lose.
        sink_tokens: First tokens that stay where only what is distant is lost.
        recent_tokens: Latest tokens that stay there.
    """

    needs_gradient: ClassVar[bool] = True

    lost: Lost = Lost.DISTANT
    sink_tokens: int = 4
    recent_tokens: int = 28

    def __post_init__(self) -> None:
        """Check the settings."""
        check_small_cache(self.sink_tokens, self.recent_tokens)

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the caches, [kv_heads], in nats per token.

        Raises:
            ValueError: If the view was made without gradients.
        """
        if view.gradient is None:
            raise ValueError("`view` must hold `gradient` for Fisher, but it has none.")
        lost = view.outputs()
        if self.lost is Lost.DISTANT:
            lost = lost - view.streaming_outputs(self.sink_tokens, self.recent_tokens)
        kv_heads = view.layer.keys.shape[1]
        total = torch.zeros(kv_heads, device=lost.device)
        for sample in view.gradient.float():
            change = (sample * lost).sum(dim=-1).unflatten(1, (kv_heads, -1)).sum(dim=2)
            total += mean_over(change.square(), view.real_tokens())
        return 0.5 * total / len(view.gradient)
