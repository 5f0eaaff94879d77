"""How a solve ended."""

from enum import Enum


class Status(Enum):
    """How a solve ended. The value is the message shown to the user."""

    OPTIMAL = "No plan within the budget loses less."
    FEASIBLE = "The plan fits the budget; nothing proves that it is the best one."
    LIMIT_REACHED = "A time or trial limit was reached; this is the best plan found so far."
    INFEASIBLE = "Nothing fits the budget and the constraints. Raise it or loosen them."

    @property
    def has_plan(self) -> bool:
        """Whether there is a plan to use."""
        return self is not Status.INFEASIBLE
