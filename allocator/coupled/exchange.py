"""From almost a plan to a plan where there are several limits or samples.

Reference:
    Original.
"""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.terms import Bools

from .multipliers import Multipliers, reduced_loss
from .stacked import Stacked

POOL = 48
"""How many steps in each direction an exchange is sought among."""
ROUNDS = 400
"""How many exchanges there are at most."""
FREE = 1e-9
"""Part of the highest price of a step below which a step counts as free."""
WORTH = 1e-12
"""Part of the risk below which a gain is rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Changes of single units.

    Args:
        unit: Whose, int64 [steps].
        level: Level that the step leads to, int64 [steps].
        extra_bytes: What it adds to each limit, int64 [limits, steps].
        extra_loss: What it adds to each sample, [steps, samples].
    """

    unit: Ints
    level: Ints
    extra_bytes: Ints
    extra_loss: Floats


def shrink_within(stacked: Stacked, multipliers: Multipliers, levels: Ints) -> Ints:
    """Lower units until every limit holds, where least loss is added per byte that is missing.

    Args:
        stacked: A problem whose lowest levels fit all limits.
        multipliers: Weights of the samples.
        levels: Levels that may need too much, int64 [units].

    Returns:
        Levels within every limit, int64 [units].
    """
    levels = levels.copy()
    units = np.arange(len(levels))
    loss = multipliers.weigh(stacked)
    spare = stacked.spare_bytes(levels)
    while (spare < 0).any():
        missing = np.maximum(-spare, 0)[:, None, None]
        saved = stacked.cost_bytes[:, units, levels][:, :, None] - stacked.cost_bytes
        # to free more than is missing is worth no more
        relief = (np.clip(saved, 0, missing) / np.maximum(missing, 1)).sum(axis=0)
        lower = (relief > 0) & (np.arange(loss.shape[1]) < levels[:, None])
        harm = np.full(loss.shape, np.inf)
        np.divide(loss - loss[units, levels, None], relief, out=harm, where=lower)
        unit, level = np.unravel_index(harm.argmin(), harm.shape)
        levels[unit] = level
        spare = stacked.spare_bytes(levels)
    return levels


def trim_within(stacked: Stacked, levels: Ints) -> Ints:
    """Lower each unit to its lowest level that loses no more in any sample, int64 [units]."""
    at = levels[None, :, None]
    no_more = stacked.sample_loss <= np.take_along_axis(stacked.sample_loss, at, axis=2)
    lowest: Ints = no_more.all(axis=0).argmax(axis=1)
    return np.minimum(lowest, levels)


def fill_within(stacked: Stacked, multipliers: Multipliers, levels: Ints) -> Ints:
    """Spend what the limits have left, always on the step that lowers the risk most per price.

    Args:
        stacked: The problem.
        multipliers: Prices by which a step's bytes are judged.
        levels: Levels within every limit, int64 [units].

    Returns:
        Levels within every limit, int64 [units]; no step of one unit would lower the risk.
    """
    while True:
        steps = steps_to(stacked, levels, fitting(stacked, levels))
        totals = stacked.totals(levels)
        gain = stacked.risk(totals) - risks(stacked, totals + steps.extra_loss)
        price = multipliers.price @ steps.extra_bytes.astype(np.float64)
        # a step without a price is worth more than any other
        worth = gain / np.maximum(price, price.max(initial=0.0) * FREE or 1.0)
        if not (worth > 0).any():
            return levels
        raised = levels.copy()
        raised[steps.unit[worth.argmax()]] = steps.level[worth.argmax()]
        if not is_better(stacked, raised, levels):
            return levels
        levels = raised


def exchange(stacked: Stacked, multipliers: Multipliers, levels: Ints) -> Ints:
    """Raise one unit and lower another while that lowers the risk.

    Args:
        stacked: The problem.
        multipliers: Prices and weights that say which steps are worth a look.
        levels: Levels within every limit, int64 [units].

    Returns:
        Levels within every limit, int64 [units], of no higher risk.
    """
    for _ in range(ROUNDS):
        change = reduced_loss(stacked, multipliers, levels)
        menu = np.arange(change.shape[1])
        up = steps_to(stacked, levels, cheapest(change, menu > levels[:, None]))
        down = steps_to(stacked, levels, cheapest(change, menu < levels[:, None]))
        pair = best_pair(stacked, levels, up, down)
        if pair is None:
            return levels
        exchanged = levels.copy()
        exchanged[up.unit[pair[0]]] = up.level[pair[0]]
        exchanged[down.unit[pair[1]]] = down.level[pair[1]]
        if not is_better(stacked, exchanged, levels):
            return levels
        levels = exchanged
    return levels


def is_better(stacked: Stacked, levels: Ints, than: Ints) -> bool:
    """Whether levels have a lower risk than others by more than rounding."""
    before = stacked.risk(stacked.totals(than))
    return stacked.risk(stacked.totals(levels)) < before - WORTH * abs(before)


def best_pair(stacked: Stacked, levels: Ints, up: Steps, down: Steps) -> tuple[int, int] | None:
    """The step up and the step down that fit together and lower the risk most, if any fit."""
    if not len(up.unit) or not len(down.unit):
        return None
    extra_bytes = up.extra_bytes[:, :, None] + down.extra_bytes[:, None, :]
    fits = (extra_bytes <= stacked.spare_bytes(levels)[:, None, None]).all(axis=0)
    fits &= up.unit[:, None] != down.unit
    totals = stacked.totals(levels) + up.extra_loss[:, None] + down.extra_loss
    then = np.where(fits, risks(stacked, totals), np.inf)
    return divmod(int(then.argmin()), len(down.unit)) if fits.any() else None


def risks(stacked: Stacked, totals: Floats) -> Floats:
    """Risk of many totals at once, [...], from [..., samples]."""
    worst = np.sort(totals, axis=-1)[..., ::-1]
    weight = np.clip(stacked.tail_samples - np.arange(totals.shape[-1]), 0.0, 1.0)
    risk: Floats = worst @ (weight / weight.sum())
    return risk


def fitting(stacked: Stacked, levels: Ints) -> Bools:
    """Levels above their own that single units could take within every limit, [units, levels]."""
    units = np.arange(len(levels))
    extra = stacked.cost_bytes - stacked.cost_bytes[:, units, levels][:, :, None]
    fits: Bools = np.logical_and.reduce(extra <= stacked.spare_bytes(levels)[:, None, None])
    return fits & (np.arange(fits.shape[1]) > levels[:, None])


def cheapest(change: Floats, among: Bools) -> Bools:
    """The ``POOL`` least changes among some, [units, levels]; ties in favour of the first."""
    order = np.argsort(np.where(among, change, np.inf), axis=None, kind="stable")[:POOL]
    chosen = np.zeros(change.shape, dtype=bool)
    chosen.ravel()[order] = True
    return chosen & among


def steps_to(stacked: Stacked, levels: Ints, chosen: Bools) -> Steps:
    """The steps from every unit's level to its chosen ones, [units, levels]."""
    unit, level = np.nonzero(chosen)
    at = levels[unit]
    return Steps(
        unit,
        level,
        stacked.cost_bytes[:, unit, level] - stacked.cost_bytes[:, unit, at],
        (stacked.sample_loss[:, unit, level] - stacked.sample_loss[:, unit, at]).T,
    )
