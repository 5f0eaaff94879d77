"""Divergence of the model's predictions, with one cache cut at a time. Nothing is estimated.

Original in this use: the other measures say what they say in order not to have to do this.

Reference:
    Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019, take heads out one at
    a time to see what each is worth. https://arxiv.org/abs/1905.10650
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from .measure import Measure, register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cut_view import CutView


@register("ablation")
@dataclass(frozen=True, slots=True)
class Ablation(Measure):
    """Divergence from the full-cache model, in nats per predicted token, all other caches full.

        loss[kv_head, level] = mean_t KL(full model's prediction at t || that of the cut model)

    where ``t`` runs over the future tokens. Michel et al. remove a head and look at the score of a
    task; here a cache is cut to a level, and what changes is what the model predicts.

    It is what the other measures stand for, and slow: the future tokens run through the layers
    above a cache once for each of its levels. At a level that keeps everything nothing is run.
    """

    in_nats: ClassVar[bool] = True
    needs_reruns: ClassVar[bool] = True

    def loss(self, view: CutView) -> Tensor:
        """Mean divergence, [kv_heads, levels].

        Raises:
            ValueError: If the view was made without the model at hand.
        """
        if view.divergence is None:
            raise ValueError("`view` must hold `divergence` for Ablation, but it has none.")
        delta = view.delta()
        change = delta.unflatten(0, (-1, view.group)).movedim(3, 1)  # [kv_heads, levels, group, ..]
        lossy = sum(tokens < view.context for tokens in view.kept_tokens)
        loss = torch.zeros(*change.shape[:2], dtype=torch.float64, device=delta.device)
        if lossy:
            for kv_head, levels in enumerate(change):
                loss[kv_head, :lossy] = view.divergence(kv_head, levels[:lossy])
        return loss
