"""Attention that a token will get from queries yet to come, if they are like those seen.

Reference:
    Devoto, Jeblick and Jégou, "Expected Attention: KV Cache Compression by Estimating Attention
    from Future Queries Distribution", 2025. https://arxiv.org/abs/2510.00636
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvbudget.kernels.attention import masked_softmax

from ..draws import oldest_column
from ..heuristic import TokenHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("expected_attention")
@dataclass(frozen=True, slots=True)
class ExpectedAttention(TokenHeuristic):
    """Score a token by its expected attention times the Euclidean norm of its value.

    Unrotated queries of a head are taken for draws of one normal distribution. Turned by the mean
    rotation of the next positions it has mean m and covariance C, and a key k the expected weight
    exp(s k.m + s^2 k.C.k / 2), s being the scaling. Weights are divided by their sum over the
    tokens and averaged over the heads that share the cache. The first tokens take no part: their
    queries are outliers and their attention is a sink. They come before all others.

    Devoto et al. take the queries of a whole prompt. So does this at the end of the prompt; while
    decoding it has the newest queries only, and then the covariance has at most their rank. A cap
    on the logits, linear biases and a sliding window are not modelled. Needs head_dim^2 numbers
    per query head, and as much time as attention from head_dim queries.

    Args:
        future: How many positions behind the newest token are averaged. Devoto et al. use 512.
        sinks: First held tokens that take no part. Devoto et al. use 4.
        covariance: Whether the spread of the queries counts, or their mean only.
        epsilon: Added to the expected attention. Devoto et al. use 0, and 0.01 to 0.02 where heads
            share a budget.
    """

    future: int = 512
    sinks: int = 4
    covariance: bool = True
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.future < 1:
            raise ValueError(f"`future` must be at least 1, but got future={self.future}.")
        if self.sinks < 0:
            raise ValueError(f"`sinks` must be at least 0, but got sinks={self.sinks}.")
        if self.epsilon < 0:
            raise ValueError(f"`epsilon` must be at least 0, but got epsilon={self.epsilon}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by expected attention times norm, [batch, kv_heads, tokens]."""
        late = view.valid & (view.rank() > self.sinks)
        sinks = None
        if view.sinks is not None:
            sinks = view.sinks.float().view(-1, view.group, 1)
        share = masked_softmax(self._logits(view), late.unsqueeze(2), sinks).mean(dim=2)
        worth = (share + self.epsilon) * view.held_values().norm(dim=-1)
        return torch.where(late, worth, worth.amax(dim=-1, keepdim=True) + 1)

    def _logits(self, view: LayerView) -> Tensor:
        """Logarithm of the expected weights, [batch, kv_heads, group, tokens]."""
        keys, scaling = view.held_keys(), view.scaling
        mean, covariance = self._future_moments(view)
        logits = scaling * mean @ keys.mT
        if self.covariance:
            for head in range(view.group):  # one at a time, as each needs a copy of the keys
                spread = ((keys @ covariance[:, :, head]) * keys).sum(dim=-1)
                logits[:, :, head] += scaling**2 / 2 * spread
        return logits

    def _future_moments(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """Mean [batch, kv_heads, group, head_dim] and covariance [..., head_dim, head_dim]."""
        mean, covariance = self._moments(view)
        if view.rotation is None:
            return mean, covariance
        newest = view.positions.masked_fill(~view.valid, 0).amax()
        ahead = newest + torch.arange(1, self.future + 1, device=newest.device)
        one_side = view.rotation.mean(covariance, ahead)
        return view.rotation.mean(mean, ahead), view.rotation.mean(one_side.mT, ahead)

    def _moments(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the unrotated queries, padding and first tokens left out."""
        # [batch, kv_heads, new]
        counts = view.query_positions - oldest_column(view) >= self.sinks
        among = counts.sum(dim=-1).clamp_min(1)[..., None, None]
        ignored = ~counts[:, :, None, :, None]
        queries = view.unrotated_queries().unflatten(1, (-1, view.group)).masked_fill(ignored, 0.0)
        mean = queries.sum(dim=3) / among
        centred = (queries - mean.unsqueeze(3)).masked_fill(ignored, 0.0)
        return mean, centred.mT @ centred / among.unsqueeze(-1)
