"""Everything that one study needs to know."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.files import FilePath
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.reduction import Reduction
from kvbudget.allocator.relaxation import hull_bound
from kvbudget.allocator.solver import CLOSED

from .objective import Objective, name_of
from .parameters import Parameters
from .plans import check_model, plan_of
from .sampler import Sampler


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A trial to make before all others.

    Args:
        values: One number per dimension.
        levels: What to measure, if it is not what the numbers stand for, int64 [units].
    """

    values: tuple[float, ...]
    levels: Ints | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A study to make or to go on with.

    Args:
        original: The problem that plans are for.
        reduction: The same without what can be worked into its menus.
        solver: Name of what makes the plans.
        objective: What is made small; ``None`` is the predicted loss.
        parameters: What the searched numbers mean.
        starts: Trials to make first.
        sampler: How values are drawn.
        trials: Trials that all processes and runs together make.
        seed: Seed of the drawn values.
        storage: Where trials are kept; ``None`` for memory.
        study_name: Name of the study in its storage.
        enough: Value at which to stop, because nothing can be lower.
        bytes_too: Whether memory is a second objective.

    Raises:
        ValueError: If there is an objective but no model to make plans for.
    """

    original: Problem
    reduction: Reduction
    solver: str
    objective: Objective | None
    parameters: Parameters
    starts: tuple[Start, ...]
    sampler: Sampler
    trials: int
    seed: int
    storage: FilePath | None
    study_name: str
    enough: float = -inf
    bytes_too: bool = False

    def __post_init__(self) -> None:
        """Check that there is a model to measure."""
        if self.objective is not None:
            check_model(self.original)

    @property
    def problem(self) -> Problem:
        """The problem that is searched."""
        return self.reduction.problem

    @property
    def kind(self) -> str:
        """Name of what is measured, so that studies are not mixed up."""
        value = name_of(self.objective)
        return f"bytes and {value}" if self.bytes_too else value

    @property
    def draws(self) -> str:
        """How values are drawn."""
        return f"{self.sampler!r} and seed {self.seed}"

    def measure(self, levels: Ints) -> float | Iterator[float]:
        """What is made small, for levels of the searched problem, int64 [units]."""
        if self.objective is None:
            return self.problem.total_loss(levels)
        return self.objective(plan_of(self.original, self.reduction.expand(levels), self.solver))


def enough_for(problem: Problem, objective: Objective | None) -> float:
    """Value that proves a plan to be the best; there is none for a measured number."""
    if objective is not None:
        return -inf
    bound = hull_bound(problem)
    return bound + CLOSED * abs(bound)
