"""Shrink the caches that matter least, and search how many and how far.

Reference: Gulhan et al., 2025. https://arxiv.org/abs/2502.13176
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import Importance, cache_importance, check_importance
from kvbudget.allocator.sharing.ranges import check_range
from kvbudget.allocator.sharing.shares import beyond, divide
from kvbudget.allocator.sharing.token_bytes import in_tokens
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class BaKlaVa(Solver):
    """Try shares of small caches and how small they are; keep the trial that loses least.

    The caches of least importance, a share ``shrunk`` of all, keep the part ``kept`` of the equal
    budget; the others get, beyond it, what these give, in proportion to importance. With the mean
    bytes ``base`` of a cache:

        kept * base                                               shrunk caches
        base + importance / sum(importance) * freed               all others

    where ``freed`` is ``(1 - kept) * base`` for each shrunk cache and the sum is over the others.
    Both numbers are searched on a grid. Equal caches are a trial as well.

    This is a reconstruction. Known are the profile made once per model, an importance per cache
    from the cosine similarity of a head's input and output and from the layer, and the search of
    how importance becomes memory. The family that is searched and its grid are not known. The
    original scores a trial by perplexity; here it is the problem's own loss, which needs no model.

    Args:
        shrunk_shares: Shares of all caches that are shrunk, to try; each in 0..1.
        kept_shares: Parts of the equal budget that a shrunk cache keeps, to try; each in 0..1.
        importance: How much each cache deserves, [layers, kv_heads], or each layer, [layers]. By
            default the loss that memory can remove from the cache.

    Reference:
        Gulhan et al., "BaKlaVa -- Budgeted Allocation of KV cache for Long-context Inference",
        2025. https://arxiv.org/abs/2502.13176
    """

    shrunk_shares: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    kept_shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("shrunk_shares", "kept_shares"):
            shares = tuple(check_range(name, share, 0.0, 1.0) for share in getattr(self, name))
            object.__setattr__(self, name, shares)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Keep the first of the best trials."""
        importance = cache_importance(problem, self.importance)
        trials = [divide(problem, in_tokens(problem, each)) for each in self._trials(importance)]
        return Choice(min(trials, key=problem.total_loss))

    def _trials(self, importance: Floats) -> Iterator[list[Fraction]]:
        """Shares of the budget, [units], of each trial; equal ones first."""
        units = len(importance)
        yield [Fraction(1)] * units
        order = np.argsort(importance, kind="stable")
        for shrunk, kept in itertools.product(self.shrunk_shares, self.kept_shares):
            small = order[: round(shrunk * units)]
            # in parts of the equal budget, times 2**20 so that the least is a whole number
            least = np.full(units, 2**20)
            least[small] = round(kept * 2**20)
            growing = importance.copy()
            growing[small] = 0.0
            yield beyond(least.tolist(), units * 2**20, growing.tolist())
