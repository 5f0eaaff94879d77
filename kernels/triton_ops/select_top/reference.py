"""Selection of the largest scores in plain torch: the CPU path and the specification."""

from __future__ import annotations

import torch
from torch import Tensor


def select_top(scores: Tensor, counts: Tensor) -> Tensor:
    """Do what the package's `select_top` documents; arguments are not checked again."""
    if not scores.numel():
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    counts = counts.clamp(max=scores.shape[1])
    least = torch.stack(
        [_least(row, count) for row, count in zip(scores, counts.tolist(), strict=True)]
    )[:, None]
    above, equal = scores > least, scores == least
    room = (counts - above.sum(1))[:, None]
    # seldom: of several equal scores on the border only the first ones have room
    if bool((equal.sum(1, keepdim=True) > room).any()):
        equal &= equal.cumsum(1) <= room
    return above.logical_or_(equal)


def _least(row: Tensor, count: int) -> Tensor:
    """The `count`-th largest score; the largest one for none."""
    # never kthvalue, whose time is quadratic where tokens come in the order of their worth
    dropped = len(row) - count
    if dropped < count:
        return row.topk(dropped + 1, largest=False, sorted=False).values.max()
    return row.topk(max(1, count), sorted=False).values.min()
