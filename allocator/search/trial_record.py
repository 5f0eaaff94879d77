"""One trial of a search, as it was measured."""

from dataclasses import dataclass
from enum import Enum

from kvbudget.allocator.arrays import Ints, same_values


class Outcome(Enum):
    """How a trial ended. The value is the message shown to the user."""

    MEASURED = "The objective gave a number."
    REPEATED = "The levels were measured before, so their value was taken and nothing was measured."
    PRUNED = "Given up early: the first estimates were worse than those of half the others."
    FAILED = "The objective gave no number."
    OVER_BUDGET = "The levels need more than the budget, so nothing was measured."


@dataclass(frozen=True, slots=True, eq=False)
class TrialRecord:
    """One trial.

    Args:
        number: Number in its study.
        outcome: How it ended.
        parameters: The searched numbers, as (name, value) pairs.
        levels: Level of each unit, int64 [units].
        used_bytes: Memory of these levels.
        loss: What the problem predicts that they lose.
        value: The measured number, lower is better; the last estimate if pruned, NaN if failed.
    """

    number: int
    outcome: Outcome
    parameters: tuple[tuple[str, float], ...]
    levels: Ints
    used_bytes: int
    loss: float
    value: float

    def to_record(self) -> dict[str, str | int | float | None]:
        """The trial as JSON types, without the levels; a value that is no number is ``None``."""
        return {
            "number": self.number,
            "outcome": self.outcome.name,
            **dict(self.parameters),
            "used_bytes": self.used_bytes,
            "loss": self.loss,
            "value": self.value if abs(self.value) < float("inf") else None,
        }

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, levels element by element."""
        return same_values(self, other)
