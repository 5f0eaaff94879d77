"""Divergence of the model's predictions, to second order.

Original in this use. Around the full cache the Kullback-Leibler divergence is quadratic, and its
curvature is the Fisher information, the mean square of the gradient of the log-likelihood of labels
drawn from the model itself.

Reference:
    Amari, "Natural Gradient Works Efficiently in Learning", Neural Computation, 1998, for the
    second-order form of the divergence. https://doi.org/10.1162/089976698300017746
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from .measure import Measure, register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cut_view import CutView


@register("divergence")
@dataclass(frozen=True, slots=True)
class Divergence(Measure):
    """Estimated divergence from the full-cache model, in nats per predicted token.

        loss[kv_head, level] = 0.5 * mean_t mean_s (sum_h gradient[s, h, t] . delta[h, t, level])^2

    where ``h`` runs over the query heads of the KV head, ``t`` over the future tokens and ``s``
    over the label samples. Changes at different tokens are taken as independent. Being in the unit
    of what is lost in the end, losses of different layers can be added up.
    """

    needs_gradient: ClassVar[bool] = True

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
