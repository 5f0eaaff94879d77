"""The two ways of rotating a head's first numbers by position."""

import torch
from torch import Tensor


def turn_neighbours(heads: Tensor, sines: Tensor) -> Tensor:
    """Rotate each number with an even place against the one behind it.

    Args:
        heads: [batch, heads, new, head_dim].
        sines: Sines and then cosines, one each for a pair, [batch or 1, new, turned]; the numbers
            from `turned` on stay.
    """
    sine, cosine = sines.unsqueeze(1).chunk(2, -1)
    turned, rest = heads[..., : sines.shape[-1]], heads[..., sines.shape[-1] :]
    even, odd = turned[..., ::2], turned[..., 1::2]
    pairs = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), -1)
    return torch.cat((pairs.flatten(-2), rest), -1)


def turn_halves(heads: Tensor, embeddings: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first half of the numbers against the second.

    Args:
        heads: [batch, heads, new, head_dim].
        embeddings: Cosines and sines, each [batch or 1, new, turned] with its halves alike; the
            numbers from `turned` on stay.
    """
    cosine, sine = (each.unsqueeze(1) for each in embeddings)
    turned, rest = heads[..., : cosine.shape[-1]], heads[..., cosine.shape[-1] :]
    low, high = turned.chunk(2, -1)
    return torch.cat((turned * cosine + torch.cat((-high, low), -1) * sine, rest), -1)
