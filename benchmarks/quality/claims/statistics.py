"""Spread over prompts: paired bootstraps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats

RESAMPLES, SEED = 10_000, 0
LEAST_NATS = 1e-6


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where 95 % of its bootstrap resamples lie.

    Args:
        value: The figure.
        low: 2.5 % of the resamples lie below.
        high: 2.5 % of the resamples lie above.
    """

    value: float
    low: float
    high: float


def ratio_of_means(pairs: Sequence[tuple[Floats, Floats]], seed: int = SEED) -> Interval:
    """Mean of one over the mean of another, the geometric mean of that over kinds of prompts.

    Prompts are drawn anew within each kind, the same ones for both, so that what makes a prompt
    hard does not count as spread.

    Args:
        pairs: For each kind the values of one and of the other, [prompts] each, at least 0.
        seed: Seed of the resamples.
    """
    rng = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(RESAMPLES)
    for one, other in pairs:
        at = rng.integers(len(one), size=(RESAMPLES, len(one)))
        value += _log_ratio(one.mean(), other.mean()) / len(pairs)
        drawn += _log_ratio(one[at].mean(axis=1), other[at].mean(axis=1)) / len(pairs)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)))


def difference_of_shares(
    pairs: Sequence[tuple[Floats, Floats]], asked: Sequence[Floats], seed: int = SEED
) -> Interval:
    """Share of one minus the share of another, over all kinds of prompts, prompts drawn in pairs.

    Args:
        pairs: For each kind how many are right of one and of the other, [prompts] each.
        asked: For each kind how many there are, [prompts].
        seed: Seed of the resamples.
    """
    rng = np.random.default_rng(seed)
    total, more, drawn_total, drawn_more = 0.0, 0.0, np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for (one, other), count in zip(pairs, asked, strict=True):
        at = rng.integers(len(one), size=(RESAMPLES, len(one)))
        more, total = more + (one - other).sum(), total + count.sum()
        drawn_more += (one - other)[at].sum(axis=1)
        drawn_total += count[at].sum(axis=1)
    low, high = np.quantile(drawn_more / drawn_total, [0.025, 0.975])
    return Interval(float(more / total), float(low), float(high))


def _log_ratio(one: Floats, other: Floats) -> Floats:
    return np.log(np.maximum(one, LEAST_NATS)) - np.log(np.maximum(other, LEAST_NATS))
