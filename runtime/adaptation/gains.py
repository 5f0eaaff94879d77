"""What a token saves, as the profile and the prompt have it."""

import torch
from torch import Tensor

from .adaptation import LayerScores
from .expected import Expected
from .places import in_order


def gains_in_order(caches: LayerScores, expected: Expected, trust: float) -> Tensor:
    """What each token saves, in the order in which its cache keeps its tokens.

        (1 - trust) * what the profile expects the next token of the cache to save
        + trust * what the cache is worth * the token's share of the cache's score mass

    Both are in the unit of the plan's measure and never rise. The prompt alone cannot rule out a
    cache that the profile knows to matter, for it does not tell what will be asked about it.

    Args:
        caches: Scores of the tokens.
        expected: What the profile expects of these caches, on the same device.
        trust: Weight of the prompt, from 0 to 1.

    Returns:
        [batch, caches, tokens], float64.
    """
    told = in_order(caches, token_shares(caches.scores, caches.reach))
    profile = (1 - trust) * expected.at(told.shape[2])
    return profile + trust * expected.worth[:, None] * told


def token_shares(scores: Tensor, reach: Tensor) -> Tensor:
    """Share of its cache's score mass that each token has.

    Scores below 0 have no mass: a cache with such scores has all of them raised by its lowest. If
    all tokens of a cache have a mass of 0, each counts the same.

    Args:
        scores: [batch, kv_heads, tokens], float32.
        reach: Tokens that count, same shape, bool.

    Returns:
        Same shape, float64, at least 0; they add up to 1 over the tokens that count.
    """
    finite = scores.double().clamp(-3e38, 3e38)
    lowest = finite.masked_fill(~reach, 0.0).amin(-1, keepdim=True)
    mass = (finite - lowest.clamp(max=0)).masked_fill(~reach, 0.0)
    total = mass.sum(-1, keepdim=True)
    mass = torch.where(total > 0, mass, reach.double())
    return mass / mass.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
