"""Few different kinds of levels: which to keep in use, found by trying.

A unit that may only use the kinds in use takes its best one at given prices; the plan is then
repaired and filled. Kinds are swapped one for another while that loses less.

Reference:
    Teitz and Bart, "Heuristic Methods for Estimating the Generalized Vertex Median of a Weighted
    Graph", Operations Research, 1968, for the swaps. https://doi.org/10.1287/opre.16.5.955
"""

import itertools
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.reduction import nearest_allowed
from kvbudget.allocator.terms import Bools, Distinct

from .exchange import fill_within, shrink_within
from .multipliers import Multipliers, reduced_loss
from .stacked import Stacked

PASSES = 4
"""How often all swaps are tried at most."""


class Trial(NamedTuple):
    """Levels that a set of kinds allows, and what they lose; infinite if nothing fits."""

    loss: float
    levels: Ints


def choose_kinds(
    stacked: Stacked, multipliers: Multipliers, distinct: tuple[Distinct, ...], share: Floats
) -> Ints | None:
    """Levels within every limit and number of kinds, int64 [units]; ``None`` if none is found.

    Args:
        stacked: Limits and samples.
        multipliers: Prices and weights near those of the best plan.
        distinct: How many kinds may be in use.
        share: Share of each level in a relaxed optimum, [units, levels]: where to start.
    """
    in_use = [start_kinds(each, share) for each in distinct]
    best = attempt(stacked, multipliers, distinct, in_use)
    for _ in range(PASSES):
        before = best.loss
        for index, each in enumerate(distinct):
            for opened, closed in itertools.product(np.unique(each.kind), np.unique(each.kind)):
                if in_use[index][opened] or not in_use[index][closed]:
                    continue
                swapped = [mask.copy() for mask in in_use]
                swapped[index][[opened, closed]] = True, False
                trial = attempt(stacked, multipliers, distinct, swapped)
                if trial.loss < best.loss:
                    best, in_use = trial, swapped
        if best.loss == before:
            break
    return best.levels if np.isfinite(best.loss) else None


def start_kinds(distinct: Distinct, share: Floats) -> Bools:
    """The kinds that are used most, [kinds], with the lowest ones first where shares are equal."""
    used = np.bincount(distinct.kind.ravel(), weights=share.ravel())
    # the kind of most units' lowest level is what makes tight limits hold
    chosen = np.zeros(len(used), dtype=bool)
    chosen[np.argsort(-used, kind="stable")[: distinct.most]] = True
    return chosen


def attempt(
    stacked: Stacked, multipliers: Multipliers, distinct: tuple[Distinct, ...], in_use: list[Bools]
) -> Trial:
    """The plan with these kinds in use."""
    masks = [mask[each.kind] for each, mask in zip(distinct, in_use, strict=True)]
    allowed = reduce(np.logical_and, masks)
    if not allowed.any(axis=1).all():
        return Trial(np.inf, np.empty(0, dtype=np.int64))
    stand_in = nearest_allowed(allowed)
    menu = restrict(stacked, stand_in)
    if not menu.fits(np.zeros(len(stand_in), dtype=np.int64)):
        return Trial(np.inf, stand_in[:, 0])
    units = np.arange(len(stand_in))
    levels = reduced_loss(menu, multipliers, np.zeros_like(units)).argmin(axis=1)
    levels = fill_within(menu, multipliers, shrink_within(menu, multipliers, levels))
    return Trial(menu.risk(menu.totals(levels)), stand_in[units, levels])


def restrict(stacked: Stacked, stand_in: Ints) -> Stacked:
    """The same with other levels in place of each, int64 [units, levels]."""
    units = np.arange(len(stand_in))[:, None]
    return replace(
        stacked,
        sample_loss=stacked.sample_loss[:, units, stand_in],
        cost_bytes=stacked.cost_bytes[:, units, stand_in],
    )
