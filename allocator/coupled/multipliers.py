"""Prices of all limits and weights of the samples, and the bound that they prove.

Whoever pays a price for every byte and counts the samples by fixed weights can do no better than
the sum of every unit's cheapest level. A plan within the limits pays no more than for all they
allow, and the risk is the largest weighted loss over the weights that it admits; so what is left
is a limit that no plan can beat, whatever the prices and the weights are.

Reference:
    Geoffrion, "Lagrangean Relaxation for Integer Programming", Mathematical Programming Studies,
    1974. https://doi.org/10.1007/BFb0120690
"""

import math
from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.relaxation import SAFETY

from .stacked import Stacked


@dataclass(frozen=True, slots=True, eq=False)
class Multipliers:
    """What a byte of each limit costs and how much each sample counts.

    Args:
        price: Loss per byte of each limit, [limits], at least 0.
        weight: Share of each sample, [samples], at least 0, together 1, each at most one part in
            ``tail_samples``.
    """

    price: Floats
    weight: Floats

    def weigh(self, stacked: Stacked) -> Floats:
        """Loss of each level with the samples weighted, [units, levels]."""
        weighed: Floats = np.tensordot(self.weight, stacked.sample_loss, axes=1)
        return weighed

    def pay(self, stacked: Stacked, cost_bytes: Ints) -> Floats:
        """What bytes of each limit, [limits, units, levels], cost together, [units, levels]."""
        paid: Floats = np.tensordot(self.price, cost_bytes.astype(np.float64), axes=1)
        return paid


def admit(price: Floats, weight: Floats, tail_samples: float) -> Multipliers:
    """The nearest multipliers that prove a bound, from almost such ones.

    Args:
        price: Loss per byte of each limit, [limits].
        weight: Share of each sample, [samples].
        tail_samples: How many of the worst samples are averaged.
    """
    most = 1.0 / tail_samples
    weight = np.clip(weight, 0.0, most)
    total = weight.sum()
    if total >= 1.0:
        weight = weight / total
    else:
        # what is missing is spread over what the weights may still grow
        room = most - weight
        weight = weight + room * ((1.0 - total) / max(room.sum(), 1.0 - total))
    return Multipliers(np.maximum(price, 0.0), weight)


def reduced_loss(stacked: Stacked, multipliers: Multipliers, levels: Ints) -> Floats:
    """Loss and paid bytes of each level above those of a unit's level in ``levels``.

    Args:
        stacked: The problem.
        multipliers: Prices and weights.
        levels: A level of each unit, int64 [units]; differences to it stay exact.

    Returns:
        Array [units, levels]; 0 at ``levels``.
    """
    at = levels[:, None]
    extra = stacked.cost_bytes - np.take_along_axis(stacked.cost_bytes, at[None], axis=2)
    loss = multipliers.weigh(stacked)
    reduced: Floats = loss - np.take_along_axis(loss, at, axis=1) + multipliers.pay(stacked, extra)
    return reduced


def prove_bound(stacked: Stacked, multipliers: Multipliers, levels: Ints) -> float:
    """Loss that no plan within the limits can beat.

    Args:
        stacked: The problem.
        multipliers: Prices and weights; any prove a bound, good ones a high one.
        levels: Levels near the best ones, int64 [units]; they only keep the arithmetic exact.
    """
    units = np.arange(len(levels))
    loss = multipliers.weigh(stacked)
    reduced = reduced_loss(stacked, multipliers, levels)
    best = reduced.argmin(axis=1)
    unspent = multipliers.price * stacked.spare_bytes(levels)
    terms = [*loss[units, levels].tolist(), *reduced[units, best].tolist(), *(-unspent).tolist()]
    # the terms of a difference are larger than the difference, and so is their rounding
    sizes = np.abs(loss[units, best] - loss[units, levels]).tolist()
    magnitude = math.fsum(abs(term) for term in terms) + 2 * math.fsum(sizes)
    return math.fsum(terms) - 2 * SAFETY * magnitude
