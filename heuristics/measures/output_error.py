"""Change of what the attention block writes into the residual stream.

Original. The change of the projected output is the quantity that perturbation bounds for cache
eviction start from; here it is measured for every level instead of bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from .measure import Measure, register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cut_view import CutView


@register("output_error")
@dataclass(frozen=True, slots=True)
class OutputError(Measure):
    """Squared change of the projected output, relative to the squared norm of the residual.

        loss[kv_head, level] = mean_t ||sum_h delta[h, t, level] W_O[h]||^2 / ||residual[t]||^2

    where ``h`` runs over the query heads of the KV head and ``t`` over the future tokens. Unitless.

    The residual is the one behind the last layer: whatever a layer writes is carried there, and
    only there its size is judged. Set against the residual that enters its own layer, a change in
    the first layers looks enormous, because the stream is still short there, and all memory goes to
    them.
    """

    needs_residual: ClassVar[bool] = True

    def loss(self, view: CutView) -> Tensor:
        """Mean relative squared error, [kv_heads, levels].

        Raises:
            ValueError: If the view was made without the residual's norm.
        """
        if view.residual_norm is None:
            raise ValueError("`view` must hold `residual_norm` for OutputError, but it has none.")
        kv_heads = view.keys.shape[0]
        weight = view.output_weight.float().reshape(kv_heads, -1, view.output_weight.shape[-1])
        if weight.shape[1] < weight.shape[2]:
            square = partial(squares_by_gram, gram=weight @ weight.mT)
        else:
            square = partial(squares, weight=weight)
        total = torch.zeros(kv_heads, view.levels, dtype=torch.float64, device=weight.device)
        for cut in view.cuts():
            per_kv_head = cut.delta.view(kv_heads, view.group, *cut.delta.shape[1:])
            delta = per_kv_head.permute(0, 2, 3, 1, 4).reshape(kv_heads, -1, weight.shape[1])
            change = square(delta).double().view(kv_heads, -1, view.levels)
            residual = view.residual_norm[cut.rows].double().square().view(1, -1, 1)
            total += (change / residual).sum(dim=1)
        return total / view.future


def squares(delta: Tensor, weight: Tensor) -> Tensor:
    """Squared norm of ``delta @ weight`` over the hidden axis.

    Args:
        delta: [kv_heads, rows, inner].
        weight: [kv_heads, inner, hidden].

    Returns:
        Squared norms, [kv_heads, rows].
    """
    return (delta @ weight).square().sum(dim=-1)


def squares_by_gram(delta: Tensor, gram: Tensor) -> Tensor:
    """As ``squares``, for ``gram = weight @ weight.T``: cheaper when inner is below hidden.

    Args:
        delta: [kv_heads, rows, inner].
        gram: [kv_heads, inner, inner].

    Returns:
        Squared norms, [kv_heads, rows].
    """
    # rounding can leave a vanishing square just below 0
    return ((delta @ gram) * delta).sum(dim=-1).clamp_min(0.0)
