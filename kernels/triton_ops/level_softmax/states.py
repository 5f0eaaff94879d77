"""What goes into and comes out of `level_softmax`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Future(NamedTuple):
    """Tokens behind the context, which every level sees.

    Args:
        keys: [kv_heads, future, head_dim], dtype of the context's keys.
        values: [kv_heads, future, value_dim], dtype of the context's values.
        positions: Their columns, int64 [future].
    """

    keys: Tensor
    values: Tensor
    positions: Tensor


class LevelStates(NamedTuple):
    """The softmax of every query at every level, float32.

    Args:
        highest: Largest logit seen (or the sink's), [kv_heads, group, rows, levels]; the lowest
            number of float32 where there is none.
        mass: Sum of exp(logit - highest), the sink's included, [kv_heads, group, rows, levels].
        output: Attention output, [kv_heads, group, rows, levels, value_dim]; 0 where nothing is
            seen.
    """

    highest: Tensor
    mass: Tensor
    output: Tensor


def empty_states(queries: Tensor, values: Tensor, levels: int) -> LevelStates:
    """Memory for the states of `queries` [heads, rows, head_dim] over `values`."""
    kv_heads, _, value_dim = values.shape
    shape = (kv_heads, queries.shape[0] // kv_heads, queries.shape[1], levels)
    device = queries.device
    return LevelStates(
        torch.empty(shape, dtype=torch.float32, device=device),
        torch.empty(shape, dtype=torch.float32, device=device),
        torch.empty(*shape, value_dim, dtype=torch.float32, device=device),
    )
