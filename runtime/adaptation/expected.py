"""What the plan's profile expects one more token to save, cache by cache."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kvbudget.allocator import Plan
from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.curves import lower_hull, running_minimum


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What each further token of a cache is expected to save, in steps that never rise.

    Args:
        ends: Rank behind each step, [caches, steps], int64, never falling.
        savings: Loss that a token of the step saves, [caches, steps], float64, never rising; in
            the unit of the plan's measure. Tokens behind the last step save nothing.
    """

    ends: Tensor
    savings: Tensor

    @property
    def worth(self) -> Tensor:
        """What all tokens of a cache save together, [caches], float64."""
        start = self.ends.new_zeros(len(self.ends), 1)
        return (self.ends.diff(dim=1, prepend=start) * self.savings).sum(1)

    def at(self, ranks: int) -> Tensor:
        """Savings of the first tokens, [caches, ranks], float64."""
        nothing = self.savings.new_zeros(len(self.savings), 1)
        steps = torch.cat([self.savings, nothing], 1)
        rank = torch.arange(ranks, device=self.ends.device).expand(len(self.ends), -1)
        return steps.gather(1, torch.searchsorted(self.ends, rank.contiguous(), right=True))

    def to(self, device: torch.device) -> "Expected":
        """The same on a device."""
        return Expected(self.ends.to(device), self.savings.to(device))


class Expectations:
    """What is expected of a plan's caches, worked out once for all layers of a prompt."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._tokens = 0
        self._expected: list[Expected] | None = None

    def of(self, plan: Plan, tokens: int) -> list[Expected] | None:
        """The same as `expected_of`, remembered for the last question."""
        if self._plan is not plan or self._tokens != tokens:
            self._plan, self._tokens = plan, tokens
            self._expected = expected_of(plan, tokens)
        return self._expected


def expected_of(plan: Plan, tokens: int) -> list[Expected] | None:
    """What is expected of every cache in a context of so many tokens.

    The curves that the plan was made from are taken as convex, as its solver does. Below the
    lowest level a token saves as much as one above it.

    Returns:
        One for each layer, all of equally many steps, or None if the plan does not hold its curves.
    """
    if plan.curves is None:
        return None
    present = plan.geometry.present
    menu = plan.geometry.capacity_tokens(plan.curves.kept_fraction, tokens)[present]
    ends, savings = _steps(menu, running_minimum(plan.curves.loss)[present])
    heads = present.sum(axis=1).tolist()
    return [Expected(*each) for each in zip(ends.split(heads), savings.split(heads), strict=True)]


def _steps(tokens: Ints, loss: Floats) -> tuple[Tensor, Tensor]:
    """Ends and savings of the steps between levels, along the lower hull of each cache's curve.

    Args:
        tokens: Tokens at each level, [caches, levels].
        loss: Loss at each level, [caches, levels].
    """
    each = zip(tokens, loss, lower_hull(tokens, loss), strict=True)
    hulls = np.array([np.interp(at, at[corner], lost[corner]) for at, lost, corner in each])
    savings = -np.diff(hulls) / np.maximum(np.diff(tokens), 1)
    # a step without tokens saves nothing by itself
    savings = np.maximum.accumulate(savings[:, ::-1], axis=1)[:, ::-1]
    return torch.from_numpy(tokens[:, 1:].copy()), torch.from_numpy(savings.copy())
