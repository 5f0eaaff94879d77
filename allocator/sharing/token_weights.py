"""Curves read as weights of tokens: how the loss that memory removes is spread over tokens.

A step of a curve counts as so many tokens of equal weight as its bytes hold the smallest step of
the problem, both in bytes of a token of mean size. On a menu of single tokens whose loss is lost
attention mass these are the attention weights, except those of the tokens that the lowest level
keeps.
"""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.layers import on_grid
from kvbudget.allocator.problem import Problem

from .token_bytes import token_sizes


@dataclass(frozen=True, slots=True, eq=False)
class TokenWeights:
    """The steps of all curves as groups of tokens.

    Args:
        tokens: Tokens of each step, [units, steps], 0 for a step that costs nothing.
        weight: Loss that each step removes, [units, steps], 1 for the most that a unit loses.
    """

    tokens: Floats
    weight: Floats

    @classmethod
    def of(cls, problem: Problem) -> "TokenWeights":
        """The weights of a problem's curves."""
        price = np.diff(problem.cost_bytes) / np.array(token_sizes(problem), dtype=float)[:, None]
        drop = np.where(price > 0, -np.diff(problem.loss), 0.0)
        smallest = price[price > 0].min(initial=problem.ceiling_bytes or 1)
        most = np.ptp(problem.loss, axis=1).max()
        return cls(price / smallest, drop / (most or 1.0))

    def entropy(self) -> Floats:
        """Entropy of each unit's tokens in nats, [units]; 0 where no loss can be removed."""
        return entropy(self.weight, self.tokens)

    def variance(self) -> Floats:
        """Variance over each unit's tokens of their share of the unit's weight, [units]."""
        tokens = self.tokens.sum(axis=1)
        whole = self.weight.sum(axis=1)
        share = ratio(self.weight, whole[:, None])
        square = ratio(share**2, self.tokens).sum(axis=1)
        mean = ratio(share.sum(axis=1), tokens)
        return ratio(square, tokens) - mean**2

    def joined(self, problem: Problem) -> "TokenWeights":
        """The tokens of each layer's caches put together, [layers, steps of all its caches]."""
        layers = problem.shape[0]
        together = (on_grid(problem, each) for each in (self.tokens, self.weight))
        return TokenWeights(*(each.reshape(layers, -1) for each in together))


def entropy(weight: Floats, tokens: Floats) -> Floats:
    """Entropy in nats of each row when a step's weight is shared by its tokens, [rows]."""
    share = ratio(weight, weight.sum(axis=1, keepdims=True))
    density = ratio(share, tokens)
    logarithm = np.log(density, out=np.zeros_like(density), where=density > 0)
    nats: Floats = np.maximum(-(share * logarithm).sum(axis=1), 0.0)
    return nats


def ratio(above: Floats, below: Floats) -> Floats:
    """Quotient, 0 where the divisor is 0."""
    above, below = np.broadcast_arrays(above, below)
    quotient: Floats = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
    return quotient
