"""Slopes of attention with linear biases.

Reference:
    Press, Smith, Lewis, "Train Short, Test Long: Attention with Linear Biases Enables Input
    Length Extrapolation", ICLR 2022. https://arxiv.org/abs/2108.12409
"""

import math
from functools import cache

import torch
from torch import Tensor


@cache
def bloom_slopes(heads: int, device: torch.device) -> Tensor:
    """Slopes as Bloom and Falcon have them, [heads], float32.

    For a power of two they halve from head to head, or fall slower by a root of that. Other
    numbers of heads take those of the power below, and then every other one of the power above.
    """
    below = 2 ** math.floor(math.log2(heads))
    first = _falling(below, torch.arange(1, below + 1, device=device))
    extra = torch.arange(1, 1 + 2 * (heads - below), 2, device=device)
    return torch.cat((first, _falling(2 * below, extra)))


@cache
def mpt_slopes(heads: int, largest: int, device: torch.device) -> Tensor:
    """Slopes as MPT has them, [heads], float32.

    Other numbers of heads than powers of two take every other one of the power above, beginning
    with the second, and then the rest.

    Args:
        heads: Number of heads.
        largest: The smallest slope is 2 to the minus this.
        device: Where to put them.
    """
    above = 2 ** math.ceil(math.log2(heads))
    steps = torch.arange(1, above + 1, device=device).float() * (largest / above)
    slopes = 1.0 / torch.pow(2, steps)
    return slopes if above == heads else torch.cat((slopes[1::2], slopes[::2]))[:heads]


def _falling(heads: int, steps: Tensor) -> Tensor:
    base = torch.full((), 2.0 ** (-8.0 / heads), device=steps.device)
    return torch.pow(base, steps)
