"""Random numbers that depend on a seed and on what they are drawn for, and on nothing else.

No generator is advanced. A batch, padding, or the order of calls does not change what is drawn.

Reference:
    Appleby, MurmurHash3, 2011. https://github.com/aappleby/smhasher
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .layer_view import LayerView

_WORD = 0xFFFFFFFF
_FACTORS = (0x85EBCA6B, 0xC2B2AE35)


def uniform(seed: int, layer: int, *places: Tensor) -> Tensor:
    """Draw numbers between 0 and 1, neither of which is drawn.

    Args:
        seed: Another seed draws other numbers.
        layer: Another layer draws other numbers.
        places: What each number is drawn for, int64, of shapes that broadcast to each other.

    Returns:
        float32, of the broadcast shape.
    """
    state = torch.full((), seed & _WORD, dtype=torch.int64, device=places[0].device)
    state = _mixed(_mixed(state) ^ (layer & _WORD))
    for place in places:
        state = _mixed(state ^ (place & _WORD))
    # 23 bits and a half: exact in float32, and never 0 or 1
    return ((state >> 9).float() + 0.5) * 2.0**-23


def gumbel(seed: int, layer: int, *places: Tensor) -> Tensor:
    """Draw from the standard Gumbel distribution; arguments as in ``uniform``."""
    return uniform(seed, layer, *places).log_().neg_().log_().neg_()


def columns_before(view: LayerView) -> Tensor:
    """Count the columns from the oldest held token to each place, int64, as ``view.valid``.

    While the first token of a sequence is held, this names a token for good, however the
    sequence is padded.
    """
    return view.positions - oldest_column(view)


def oldest_column(view: LayerView) -> Tensor:
    """Column of the oldest held token, int64, [batch, kv_heads, 1]."""
    last = torch.iinfo(torch.int64).max
    return view.positions.masked_fill(~view.valid, last).amin(dim=-1, keepdim=True)


def _mixed(state: Tensor) -> Tensor:
    """Spread every bit of 32 over all of them; equal only for equal states."""
    for shift, factor in zip((16, 13), _FACTORS, strict=True):
        state = ((state ^ (state >> shift)) * factor) & _WORD
    return state ^ (state >> 16)
