"""A search over a few parameters, for losses that are not sums.

The sum over caches is a prediction. Where a number can be measured, such as the perplexity of the
model under a plan, the search makes that small. It begins with the plan of the convex hulls, so
it never measures worse than that one.

Reference:
    Akiba, Sano, Yanase, Ohta and Koyama, "Optuna: A Next-generation Hyperparameter Optimization
    Framework", KDD 2019. https://arxiv.org/abs/1907.10902
"""

from dataclasses import dataclass, field
from typing import ClassVar

from kvbudget.allocator.checks import check_count, check_text
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.files import FilePath
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.risk import CVaR, Risk, WorstSample
from kvbudget.allocator.search import (
    Objective,
    Parameters,
    PriceAndGroups,
    Sampler,
    Tpe,
    search_plans,
)
from kvbudget.allocator.solver import Choice, Solver
from kvbudget.allocator.status import Status


@dataclass(frozen=True, slots=True)
class OptunaSearch(Solver):
    """Try plans one after another and keep the one with the lowest value.

    :func:`search_plans` takes the same object and also returns the measured values and all
    trials; :func:`search_front` searches memory against the value.

    Args:
        objective: Function from a plan to a number, lower is better, or to an iterator of better
            and better estimates. ``None`` takes the problem's predicted loss, and the search ends
            at once if the first plan is proven to be the best. With an objective, of plans with
            equal levels only the first is measured.
        parameters: What the searched numbers mean.
        sampler: How values are drawn.
        trials: Trials to make, those of earlier runs and of other processes included.
        seed: Seed of the drawn values.
        storage: Where trials are kept, so that a run that was killed can go on: the path of a
            journal file or the URL of a database, such as ``"sqlite:///search.db"``. Several
            processes may share it. ``None`` keeps them in memory.
        study_name: Name of the study in the storage.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If there are no trials or the seed is negative.
    """

    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset({WorstSample, CVaR})

    objective: Objective | None = field(default=None, repr=False)
    parameters: Parameters = PriceAndGroups()  # noqa: RUF009
    sampler: Sampler = Tpe()  # noqa: RUF009
    trials: int = 50
    seed: int = 0
    storage: FilePath | None = field(default=None, repr=False)
    study_name: str = field(default="kvbudget", repr=False)

    def __post_init__(self) -> None:
        """Check what Optuna would refuse in other words."""
        check_count("trials", self.trials)
        check_count("seed", self.seed, least=0)
        check_text("study_name", self.study_name)
        check_kind("parameters", self.parameters, Parameters)
        check_kind("sampler", self.sampler, Sampler)

    def choose(self, problem: Problem) -> Choice:
        """Search and return the levels with the lowest value.

        Raises:
            ValueError: If there is an objective but no model to make plans for, or if it never
                gave a number.
        """
        best = search_plans(problem, self).best
        return Choice(best.levels, Status.LIMIT_REACHED)


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse a field that is not an object of a kind.

    Raises:
        TypeError: If it is a class, a name, or anything else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be an object of {kind.__name__}, but got {value!r:.60}.")
