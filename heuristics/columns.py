"""Tokens that several KV heads hold, found by their column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .layer_view import LayerView


def sum_by_column(view: LayerView, mass: Tensor) -> Tensor:
    """Sum over the KV heads that hold a token, whatever place it has there.

    Args:
        view: Where the tokens are.
        mass: One number per place, [batch, kv_heads, tokens].

    Returns:
        As ``mass``: at every place the sum over the heads that hold its column.
    """
    columns = view.positions.masked_fill(~view.valid, -1).flatten(1)
    columns, order = columns.sort(dim=-1)
    starts = columns.diff(dim=-1, prepend=columns[:, :1]) != 0
    numbers = starts.cumsum(dim=-1)  # of the distinct columns, from 0
    flat = mass.flatten(1)
    totals = torch.zeros_like(flat).scatter_add_(-1, numbers, flat.gather(-1, order))
    shared = torch.empty_like(flat).scatter_(-1, order, totals.gather(-1, numbers))
    return shared.view_as(mass)
