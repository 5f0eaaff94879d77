"""The limits and the samples of a problem, stacked: what several multipliers work on."""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.risk import Mean, tail_mean
from kvbudget.allocator.terms import Bools, Limit, terms_of


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """A problem as arrays: what each sample loses and what each limit allows.

    The mean is the risk of one sample, so nothing that reads this asks for the kind of risk.

    Args:
        sample_loss: Loss in each sample, [samples, units, levels].
        tail_samples: How many of the worst samples are averaged, from 1 to ``samples``.
        cost_bytes: What each limit counts, int64 [limits, units, levels], never falling along the
            levels; the total budget is the first limit.
        most_bytes: What it allows, int64 [limits].
    """

    sample_loss: Floats
    tail_samples: float
    cost_bytes: Ints
    most_bytes: Ints

    def totals(self, levels: Ints) -> Floats:
        """Loss of a choice in each sample, [samples]."""
        sums: Floats = self.sample_loss[:, np.arange(len(levels)), levels].sum(axis=1)
        return sums

    def risk(self, totals: Floats) -> float:
        """The loss that is minimised, from that of each sample, [samples]."""
        return tail_mean(totals, self.tail_samples)

    def spare_bytes(self, levels: Ints) -> Ints:
        """What a choice leaves of each limit, int64 [limits]; below 0 where it needs more."""
        used = self.cost_bytes[:, np.arange(len(levels)), levels].sum(axis=1)
        spare: Ints = self.most_bytes - used
        return spare

    def fits_alone(self) -> Bools:
        """Levels that fit every limit where all other units are at the lowest, [units, levels]."""
        floor = np.zeros(self.cost_bytes.shape[1], dtype=np.int64)
        extra = self.cost_bytes - self.cost_bytes[:, :, :1]
        room = self.spare_bytes(floor)
        fits: Bools = np.logical_and.reduce(extra <= room[:, None, None])
        return fits

    def fits(self, levels: Ints) -> bool:
        """Whether a choice is within every limit."""
        return bool((self.spare_bytes(levels) >= 0).all())


def stack(problem: Problem) -> Stacked:
    """Stack the limits and the samples of a reduced problem."""
    total = Limit(problem.cost_bytes, problem.budget_bytes, "the budget")
    limits = (total, *terms_of(problem).limits)
    samples = problem.sample_loss
    if samples is None or problem.risk == Mean():
        samples = problem.loss[None]
    return Stacked(
        sample_loss=samples,
        tail_samples=problem.risk.tail_samples(len(samples)),
        cost_bytes=np.stack([limit.cost_bytes for limit in limits]),
        most_bytes=np.array([within_ceiling(limit) for limit in limits], dtype=np.int64),
    )


def within_ceiling(limit: Limit) -> int:
    """Bytes that a limit allows, or all that there are to take if these are fewer."""
    ceiling: int = sum(limit.cost_bytes[:, -1].tolist())
    return min(limit.most_bytes, ceiling)
