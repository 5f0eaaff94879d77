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
from kvbudget.allocator.search.kinds import check_kind, check_objective
from kvbudget.allocator.solver import Choice, Solver
from kvbudget.allocator.status import Status


@dataclass(frozen=True, slots=True)
class OptunaSearch(Solver):
    """Try plans one after another and keep the one with the lowest value.

    :func:`search_plans` takes the same object and also returns the measured values and all
    trials; :func:`search_front` searches memory against the value, for two objectives.

        from kvbudget.allocator.search import LayerGroups, Tpe, search_plans

        def perplexity(plan):
            with budgeted(model, plan) as cache:
                return measure(model, cache)

        search = OptunaSearch(perplexity, LayerGroups(), Tpe(5), storage="search.journal")
        plan = search_plans(problem, search).plan

    To go on after a crash or an interrupt, run the same search again with the same storage: it
    makes the trials that are still missing, and more of them if ``trials`` has grown. The study
    knows its objective again by the name of its module and function only (all lambdas of a scope
    share one), so choose another ``study_name`` when what that name measures has changed.

    Args:
        objective: Function from a plan to a number, lower is better. A generator function yields
            better and better estimates; the last one counts, and a plan that does worse than half
            of the others up to the same step is given up. ``None`` takes the problem's predicted
            loss, and the search ends at once if the first plan is proven to be the best.
        parameters: What the searched numbers mean, from ``kvbudget.allocator.search``:
            ``PriceAndGroups()`` multiplies the losses of a few groups of layers,
            ``LayerGroups()`` their budgets, and ``ShareAndRatio()`` shrinks the caches that
            matter least.
        sampler: How values are drawn, from ``kvbudget.allocator.search``: ``Tpe()``, ``CmaEs()``
            for one objective only, or ``NsgaII()``.
        trials: Trials to make, those of earlier runs and of other processes included. One that
            comes to a plan measured before takes its value and costs no call of the objective.
        seed: Seed of the drawn values.
        storage: Where trials are kept: the path of a journal file or the URL of a database, such
            as ``"sqlite:///search.db"``. Several processes may share it. ``None`` keeps them in
            memory.
        study_name: Name of the study in the storage.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If there are no trials or the seed is negative.

    Warning:
        With ``CmaEs()`` Optuna unpickles the sampler's state from the storage, and a pickle can
        run any code. Never resume a stranger's storage with it.
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
        check_objective(self.objective)
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
