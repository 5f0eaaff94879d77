"""Tokens whose loss would move the output of the layer most.

Reference:
    Feng et al., "Identify Critical KV Cache in LLM Inference from an Output Perturbation
    Perspective" (CriticalKV), 2025. https://arxiv.org/abs/2502.03805
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kvbudget.kernels.attention import chunks

from ..heuristic import TokenHeuristic
from ..registry import register
from ..two_stages import two_stage_score
from .observation_window import ObservationWindow

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView

TOKENS_PER_CHUNK = 256
"""Values are projected to the hidden size at most this many tokens at a time."""


@register("critical_kv")
@dataclass(frozen=True, slots=True)
class CriticalKV(TokenHeuristic):
    """Order tokens by a selection in two stages: by attention, then by effect on the output.

    Half of a cache goes to the tokens with the highest window attention, as `ObservationWindow`
    scores them. The other half goes to the highest (score + epsilon) * ||v W_O||_1 among the
    rest, the norm being the mean over the query heads that share the value. The score is minus
    the smallest capacity at which these two stages select the token: its best tokens are exactly
    those of Feng et al. at every capacity, as long as they include what the runtime protects.

    If the output projection is not known, the norm of the value itself is taken. Otherwise the
    norms cost as much as projecting all held tokens through W_O once more.

    Args:
        window: How many of the last queries are observed.
        kernel: Width of the max-pooling of their attention, odd; 1 is none.
        share: Part of a cache that goes by attention alone. Feng et al. use 0.5.
        epsilon: Added to the score of the first stage. Feng et al. use 1e-4.
    """

    reads_output_weight: ClassVar[bool] = True

    window: int = 32
    kernel: int = 7
    share: float = 0.5
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        """Check the settings."""
        ObservationWindow(self.window, self.kernel)
        if not 0 <= self.share <= 1:
            raise ValueError(f"`share` must be between 0 and 1, but got share={self.share}.")
        if self.epsilon < 0:
            raise ValueError(f"`epsilon` must be at least 0, but got epsilon={self.epsilon}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by minus the smallest sufficient capacity, [batch, kv_heads, tokens]."""
        attention = ObservationWindow(self.window, self.kernel).score(view)
        effect = (attention + self.epsilon) * output_norm(view)
        return two_stage_score(attention, effect, view.valid, self.share)


def output_norm(view: LayerView) -> Tensor:
    """Sum of absolute numbers that each value adds to the hidden state at full attention.

    Returns:
        Mean over the group, [batch, kv_heads, tokens], float32; of the bare values if the output
        projection is not known.
    """
    values = view.held_values()
    if view.output_weight is None:
        return values.abs().sum(dim=-1)
    weight = view.output_weight.float().unflatten(0, (-1, view.group))
    norm = values.new_zeros(values.shape[:3])
    for part in chunks(values.shape[2], TOKENS_PER_CHUNK):
        for head in range(view.group):
            norm[..., part] += (values[:, :, part] @ weight[:, head]).abs().sum(dim=-1)
    return norm / view.group
