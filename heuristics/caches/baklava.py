"""How much the heads of a cache change what they read: a reconstruction of BaKlaVa.

The published formula could not be recovered. What is known: the importance of a head comes from
the cosine similarity of its input and its output, query heads are reduced to one number per
cache, and a number per layer is combined with it. Everything else here is a reconstruction, and
every choice that it had to make is a setting.

Reference:
    Gulhan et al., "BaKlaVa -- Budgeted Allocation of KV cache for Long-context Inference", 2025.
    https://arxiv.org/abs/2502.13176
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from kvbudget.kernels.attention import chunks

from ..heuristic import CacheHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cache_view import CacheView

ROWS_PER_CHUNK = 1024
ROUNDING = 1e-6


class HeadInput(Enum):
    """What the output of a head is compared with.

    Attributes:
        VALUE: The value of the token itself, in the KV head that the head reads.
        RESIDUAL: The residual stream; the head's output is then taken after its projection.
    """

    VALUE = "value"
    RESIDUAL = "residual"


class Reduction(Enum):
    """How the query heads of a cache become one number.

    A sum would be the same as the mean, because the mean over the layer's caches is divided out.

    Attributes:
        MEAN: The mean over the group.
        MAX: The head of the group that changes its input most.
    """

    MEAN = "mean"
    MAX = "max"


class HeadWeight(Enum):
    """How much a token counts in the mean over tokens.

    Attributes:
        EQUAL: Every token the same.
        OUTPUT_NORM: By the norm of the head's projected output, relative to the residual stream.
    """

    EQUAL = "equal"
    OUTPUT_NORM = "output_norm"


class LayerScore(Enum):
    """How much a layer counts as a whole.

    Attributes:
        RESIDUAL_CHANGE: 1 minus the cosine of the residual stream before and after attention.
        EQUAL: Every layer the same.
    """

    RESIDUAL_CHANGE = "residual_change"
    EQUAL = "equal"


@register("baklava")
@dataclass(frozen=True, slots=True)
class Baklava(CacheHeuristic):
    """Weigh a cache by how much its heads turn their input. A reconstruction, not the original.

        head(h)  = mean_t 1 - cos(input[h, t], output[h, t])
        cache(g) = layer * reduce_{h in g} head(h) / mean_g reduce_{h in g} head(h)

    The published formula could not be recovered: see the notes of this module. With ``EQUAL``
    weights a head that rests on the first token and writes almost nothing counts as important;
    ``OUTPUT_NORM`` mends that and is not known to be part of the original.

    Args:
        head_input: What a head's output is compared with.
        reduction: How the query heads of a cache become one number.
        head_weight: How much a token counts.
        layer_score: How much the layer counts.
        skip_first: First tokens of a sequence left out of every mean. The very first can only
            attend to itself, and the next ones are dominated by it.
    """

    head_input: HeadInput = HeadInput.VALUE
    reduction: Reduction = Reduction.MEAN
    head_weight: HeadWeight = HeadWeight.EQUAL
    layer_score: LayerScore = LayerScore.RESIDUAL_CHANGE
    skip_first: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.skip_first < 0:
            raise ValueError(
                f"`skip_first` must be at least 0, but got skip_first={self.skip_first}."
            )

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the caches of a layer, [kv_heads], their mean being the score of the layer.

        Raises:
            ValueError: If every sequence is too short for ``skip_first``.
        """
        counted = self._counted(view)
        layer = view.layer
        change = torch.zeros(layer.queries.shape[1], device=layer.keys.device)
        turn = torch.zeros((), device=layer.keys.device)
        outputs = view.outputs()
        for rows in chunks(layer.new, ROWS_PER_CHUNK):
            weights = counted[:, rows] / counted.sum()  # [batch, rows]
            written = torch.zeros_like(view.residual[:, rows], dtype=torch.float32)
            for head in range(len(change)):
                projected = outputs[:, head, rows] @ view.output_weight[head].float()
                written += projected
                turned = self._turned(view, head, rows, outputs[:, head, rows], projected)
                change[head] += _weighted_sum(turned, weights)
            turned = self._layer_turned(view.residual[:, rows].float(), written)
            turn += _weighted_sum(turned, weights)
        return turn * self._shares(change.view(layer.keys.shape[1], -1))

    def _counted(self, view: CacheView) -> Tensor:
        """1 for tokens that enter the means, [batch, tokens], float32."""
        valid = view.layer.valid.any(dim=1)
        counted = valid & (valid.cumsum(dim=-1) > self.skip_first)
        if not counted.any():
            longest = int(valid.sum(dim=-1).max())
            raise ValueError(
                f"`skip_first` must leave some tokens, but got skip_first={self.skip_first} for "
                f"{longest} tokens. Use longer prompts."
            )
        return counted.float()

    def _turned(
        self, view: CacheView, head: int, rows: slice, output: Tensor, projected: Tensor
    ) -> Tensor:
        """How much one head changes its input at each token, [batch, rows], never negative."""
        residual = view.residual[:, rows].float()
        if self.head_input is HeadInput.VALUE:
            values = view.layer.values[:, head // view.layer.group, rows].float()
            turned = 1.0 - cosine_similarity(values, output, dim=-1)
        else:
            turned = 1.0 - cosine_similarity(residual, projected, dim=-1)
        if self.head_weight is HeadWeight.OUTPUT_NORM:
            size = residual.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
            turned = turned * projected.norm(dim=-1) / size
        return turned.clamp_min(0.0)

    def _layer_turned(self, residual: Tensor, written: Tensor) -> Tensor:
        """How much attention turns the residual stream at each token, [batch, rows]."""
        if self.layer_score is LayerScore.EQUAL:
            return torch.ones_like(residual[..., 0])
        turned = 1.0 - cosine_similarity(residual, residual + written, dim=-1)
        return turned.clamp_min(0.0)

    def _shares(self, change: Tensor) -> Tensor:
        """Reduce [kv_heads, group] to shares of mean 1, [kv_heads]; equal if nothing turns."""
        per_cache = change.mean(dim=-1) if self.reduction is Reduction.MEAN else change.amax(dim=-1)
        mean = per_cache.mean()
        return torch.where(mean > ROUNDING, per_cache / mean, torch.ones_like(per_cache))


def _weighted_sum(per_token: Tensor, weights: Tensor) -> Tensor:
    # what a model writes at padding may be NaN, and 0 * NaN is NaN
    return (per_token.masked_fill(weights == 0, 0.0) * weights).sum()
