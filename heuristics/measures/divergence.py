"""Divergence of the model's predictions, to second order, with exact values where it is large.

Original in this use. Around the full cache the Kullback-Leibler divergence is quadratic, and its
curvature is the Fisher information, the mean square of the gradient of the log-likelihood of labels
drawn from the model itself.

Reference:
    Amari, "Natural Gradient Works Efficiently in Learning", Neural Computation, 1998, for the
    second-order form of the divergence. https://doi.org/10.1162/089976698300017746
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from .measure import RefinedMeasure, register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cut_view import CutView


@register("divergence")
@dataclass(frozen=True, slots=True)
class Divergence(RefinedMeasure):
    """Estimated divergence from the full-cache model, in nats per predicted token.

        loss[kv_head, level] = 0.5 * mean_t mean_s (sum_h gradient[s, h, t] . delta[h, t, level])^2

    where ``h`` runs over the query heads of the KV head, ``t`` over the future tokens and ``s``
    over the label samples. Changes at different tokens are taken as independent. Being in the unit
    of what is lost in the end, losses of different layers can be added up.

    The estimate holds near the full cache. A head that retrieves is far from it as soon as it is
    cut: the model was sure and then is not, and the estimate may be a tenth of the truth. So the
    largest losses are measured instead, by running the model with that one cache cut.

    Args:
        rerun_passes: Most work for such runs, in forward passes of the whole prompt; 0 leaves the
            estimate as it is. A run takes only the future tokens, so there are the more of them
            the longer the context is.
    """

    in_nats: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True

    rerun_passes: float = 2.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 <= self.rerun_passes < math.inf:
            raise ValueError(
                "`rerun_passes` must be finite and at least 0, but got "
                f"rerun_passes={self.rerun_passes}."
            )

    def loss(self, view: CutView) -> Tensor:
        """Half the mean squared change of the log-likelihood, [kv_heads, levels].

        Raises:
            ValueError: If the view was made without gradients.
        """
        if view.gradient is None:
            raise ValueError("`view` must hold `gradient` for Divergence, but it has none.")
        kv_heads, samples = view.keys.shape[0], len(view.gradient)
        total = torch.zeros(kv_heads, view.levels, dtype=torch.float64, device=view.queries.device)
        for cut in view.cuts():
            gradient = view.gradient[:, :, cut.rows].float()
            change = torch.einsum("shtd,htld->shtl", gradient, cut.delta)
            per_kv_head = change.unflatten(1, (kv_heads, view.group)).sum(dim=2)
            total += per_kv_head.double().square().sum(dim=(0, 2))
        return 0.5 * total / (samples * view.future)
