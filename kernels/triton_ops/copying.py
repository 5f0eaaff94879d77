"""What the Triton programs that copy rows share."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# more would not fit the registers of the 128 threads of a usual launch
_MOST_ELEMENTS = 8192


def as_bits(tensor: Tensor) -> Tensor:
    """The same memory as whole numbers, so that one program copies every dtype of a size."""
    return tensor.view(_BITS[tensor.element_size()])


def tile_tokens(most: int, block: int) -> int:
    """Rows of a tile of this width: at most `most`, fewer where rows are wide."""
    return min(most, max(1, _MOST_ELEMENTS // block))
