"""Which prompts a plan is made for: the average one, the worst one, or the worst few.

Reference:
    Rockafellar and Uryasev, "Optimization of Conditional Value-at-Risk", Journal of Risk, 2000.
    https://doi.org/10.21314/JOR.2000.038
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from .arrays import Floats
from .checks import check_number


class Risk(ABC):
    """How the losses of the calibration samples become one number: the mean of the worst few."""

    __slots__ = ()

    @abstractmethod
    def tail_samples(self, num_samples: int) -> float:
        """How many of the worst samples are averaged, from 1 to ``num_samples``; may be broken."""


@dataclass(frozen=True, slots=True)
class Mean(Risk):
    """Minimise the mean over all samples."""

    def tail_samples(self, num_samples: int) -> float:
        """All samples."""
        return float(num_samples)


@dataclass(frozen=True, slots=True)
class WorstSample(Risk):
    """Minimise the loss of the sample that loses most."""

    def tail_samples(self, num_samples: int) -> float:
        """One sample."""
        return 1.0


@dataclass(frozen=True, slots=True)
class CVaR(Risk):
    """Minimise the conditional value at risk: the mean over the samples that lose most.

    Args:
        level: Share of the samples that is left out because it loses less, in [0, 1). 0 is
            :class:`Mean`; a level above ``1 - 1 / samples`` is :class:`WorstSample`.

    Raises:
        TypeError: If the level is not a number.
        ValueError: If it is outside [0, 1).
    """

    level: float = 0.9

    def __post_init__(self) -> None:
        """Check the level."""
        level = check_number("level", self.level)
        if not 0 <= level < 1:
            raise ValueError(f"`level` must be at least 0 and below 1, but got level={level}.")
        object.__setattr__(self, "level", level)

    def tail_samples(self, num_samples: int) -> float:
        """The share that is not left out, at least one sample."""
        return max(1.0, (1.0 - self.level) * num_samples)


def tail_mean(totals: Floats, tail_samples: float) -> float:
    """Mean of the largest totals, where the last one may count in part.

    Args:
        totals: Loss of each sample, [samples].
        tail_samples: How many to average, from 1 to ``samples``.
    """
    worst = np.sort(totals)[::-1]
    weight = np.clip(tail_samples - np.arange(len(worst)), 0.0, 1.0)
    return float(weight @ worst / weight.sum())
