"""Masks as our attention understands them."""

import torch
from torch import Tensor


def causal(mask: Tensor | None, new: int) -> Tensor | None:
    """A mask of four axes out of one that only tells padding, as flash attention gets it.

    Args:
        mask: [batch, columns], not 0 where a column is no padding; others are returned as they are.
        new: Queries, which are those of the last columns.
    """
    if mask is None or mask.dim() != 2:
        return mask
    column = torch.arange(mask.shape[1], device=mask.device)
    return (column <= column[-new:, None]) & mask.bool()[:, None, None]


def windowed(mask: Tensor, window: int) -> Tensor:
    """The same mask, but no query sees further back than the window, its own column included.

    Args:
        mask: [batch, 1, new, columns], additive.
        window: Columns.
    """
    new, columns = mask.shape[-2:]
    column = torch.arange(columns, device=mask.device)
    gone = column <= column[columns - new :, None] - window
    return mask.masked_fill(gone, torch.finfo(mask.dtype).min)
