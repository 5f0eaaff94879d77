"""The decision to make, stated once: a multiple-choice knapsack."""

from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, float_array, int_array, refuse, same_values
from .budget import Budget, parse_budget
from .bytes_text import format_bytes
from .checks import check_count
from .curves import running_minimum
from .origin import Origin
from .profile import Profile

AXES = ("units", "levels")
MOST_BYTES = 2**53
MOST_LOSS = 1e290


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Choose one level per unit so that total loss is least within a byte budget.

        minimise    sum_u loss[u, level[u]]
        subject to  sum_u cost_bytes[u, level[u]] <= budget_bytes

    A unit is whatever gets its own budget: one KV head of one layer, or a whole layer.

    Args:
        loss: Loss of each unit at each level, [units, levels], unitless, never rising.
        cost_bytes: Memory of each unit at each level, int64 [units, levels], never falling.
        budget_bytes: Bytes that all units may use together.
        constraints: Further limits. No kind of constraint exists yet, so it must be empty.
        origin: Where the problem came from; only needed to turn a solution into a plan.

    Raises:
        TypeError: If an array does not hold numbers or a field has the wrong type.
        ValueError: If shapes differ, a value is not finite, the loss rises, or the cost falls.
    """

    loss: Floats
    cost_bytes: Ints
    budget_bytes: int
    constraints: tuple[object, ...] = ()
    origin: Origin | None = None

    def __post_init__(self) -> None:
        """Copy and check every field."""
        checked = {
            "loss": float_array("loss", self.loss, AXES),
            "cost_bytes": int_array("cost_bytes", self.cost_bytes, AXES),
            "budget_bytes": check_count("budget_bytes", self.budget_bytes, least=0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_constraints(self.constraints)
        self._check_curves()

    def _check_curves(self) -> None:
        """Refuse arrays of different shapes and curves that turn the wrong way."""
        loss, cost = self.loss, self.cost_bytes
        if loss.shape != cost.shape:
            raise ValueError(
                "`loss` and `cost_bytes` must share the shape [units, levels],"
                f" but got {loss.shape} and {cost.shape}."
            )
        refuse("loss", loss, np.abs(loss) > MOST_LOSS, AXES, "must be within 1e290")
        rule = "must never rise from one level to the next (running_minimum repairs it)"
        refuse("loss", loss, np.diff(loss, prepend=loss[:, :1]) > 0, AXES, rule)
        refuse("cost_bytes", cost, cost < 0, AXES, "must be at least 0")
        rule = "must never fall from one level to the next"
        refuse("cost_bytes", cost, np.diff(cost, prepend=cost[:, :1]) < 0, AXES, rule)
        check_total("cost_bytes", self.ceiling_bytes)

    @classmethod
    def from_profile(
        cls,
        profile: Profile,
        *,
        budget: Budget,
        context_tokens: int,
        batch_size: int = 1,
        constraints: tuple[object, ...] = (),
    ) -> "Problem":
        """The problem of dividing a budget among the caches of a profiled model.

        A measured loss may rise a little with memory. The problem then takes the loss of the
        best level that needs no more memory.

        Args:
            profile: Measured losses; a unit is one of its caches, layer by layer.
            budget: Bytes, ``"2GiB"``, ``"25%"`` of the full cache, or ``Tokens(1024)``.
            context_tokens: Longest context to plan for, in tokens.
            batch_size: Sequences that share the budget.
            constraints: Further limits. No kind of constraint exists yet.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the budget cannot be read or a count is below 1.
        """
        if not isinstance(profile, Profile):
            raise TypeError(f"`profile` must be a Profile, but got {profile!r:.60}.")
        check_count("context_tokens", context_tokens)
        check_count("batch_size", batch_size)
        geometry = profile.geometry
        check_total("context_tokens", geometry.full_bytes(context_tokens, batch_size))
        origin = Origin.of(profile, context_tokens, batch_size)
        return cls(
            loss=running_minimum(profile.loss).reshape(geometry.caches, -1),
            cost_bytes=origin.capacity_tokens * geometry.bytes_per_token * batch_size,
            budget_bytes=parse_budget(budget, geometry, context_tokens, batch_size),
            constraints=constraints,
            origin=origin,
        )

    @property
    def floor_bytes(self) -> int:
        """Bytes of the smallest choice: every unit at its lowest level."""
        return sum(self.cost_bytes[:, 0].tolist())

    @property
    def ceiling_bytes(self) -> int:
        """Bytes of the largest choice: every unit at its highest level."""
        return sum(self.cost_bytes[:, -1].tolist())

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)

    def __str__(self) -> str:
        """Two lines for people."""
        units, levels = self.loss.shape
        lowest, highest = format_bytes(self.floor_bytes), format_bytes(self.ceiling_bytes)
        return (
            f"Problem: {units} units with {levels} levels each,"
            f" budget {format_bytes(self.budget_bytes)}\n"
            f"  lowest levels   {lowest}, loss {self.loss[:, 0].sum():.4g}\n"
            f"  highest levels  {highest}, loss {self.loss[:, -1].sum():.4g}"
        )


def check_total(name: str, num_bytes: int) -> None:
    """Refuse so many bytes that their sums would not be exact in floating point.

    Raises:
        ValueError: If there are more than 2**53.
    """
    if num_bytes > MOST_BYTES:
        raise ValueError(
            f"`{name}` must keep all caches together within {format_bytes(MOST_BYTES)},"
            f" but they need {format_bytes(num_bytes)}."
        )


def check_constraints(constraints: object) -> None:
    """Refuse constraints, of which no kind exists yet.

    Raises:
        ValueError: If there are any.
    """
    if constraints != ():
        raise ValueError(
            f"`constraints` must be empty, because no kind of constraint exists yet,"
            f" but got {constraints!r:.60}."
        )
