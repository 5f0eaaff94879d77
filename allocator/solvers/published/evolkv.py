"""Budgets of layers by evolution, a few neighbouring layers at a time.

A reconstruction. From the paper: neighbouring layers form groups, the covariance matrix adaptation
evolves the budgets of one group while all others are held, and the groups follow one another from
the first layer on. Here every candidate is scaled to the whole budget before it is measured, where
the paper rewards candidates near the budget and scales once at the end, so its reward term is not
needed. The size of a generation and the number of trials are not from the paper.

Reference:
    Yu and Chai, "EvolKV: Evolutionary KV Cache Compression for LLM Inference", 2025.
    https://arxiv.org/abs/2509.08315
"""

from dataclasses import dataclass, field

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.checks import check_count
from kvbudget.allocator.files import FilePath
from kvbudget.allocator.layers import layer_of_units, units_in_layers
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.search.dimension import Dimension, Real
from kvbudget.allocator.search.kinds import check_objective
from kvbudget.allocator.search.objective import Objective
from kvbudget.allocator.search.parameters import Parameters
from kvbudget.allocator.search.result import SearchResult
from kvbudget.allocator.search.sampler import CmaEs
from kvbudget.allocator.search.search_plans import reduce_for, result_of
from kvbudget.allocator.search.targets import levels_near, shared_bytes
from kvbudget.allocator.search.task import Start, Task, enough_for
from kvbudget.allocator.sharing.token_bytes import layer_sizes
from kvbudget.allocator.solver import Choice, Solver
from kvbudget.allocator.status import Status

MOST_FACTOR = 8.0


@dataclass(frozen=True, slots=True)
class GroupBudgets(Parameters):
    """Factors on the budgets of a few layers, the proportions of all others held.

    Args:
        weights: Budget of each layer so far over its size, up to a common factor, [layers].
        first: First layer of the group.
        end: The layer after its last.
    """

    weights: tuple[float, ...]
    first: int
    end: int

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """One factor per layer of the group."""
        names = [f"layer {layer}" for layer in range(self.first, self.end)]
        return tuple(Real(name, 1 / MOST_FACTOR, MOST_FACTOR, log=True) for name in names)

    def starts(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """The budgets so far."""
        return ((1.0,) * (self.end - self.first),)

    def levels(self, problem: Problem, values: Floats) -> Ints:
        """Scale all budgets to the total, share each equally among the layer's caches, round."""
        weights = np.array(self.moved(values.tolist())) * layer_sizes(problem)
        layer_bytes = shared_bytes(problem.budget_bytes, weights)
        each = layer_bytes / units_in_layers(problem)
        return levels_near(problem, each[layer_of_units(problem)])

    def moved(self, factors: list[float]) -> tuple[float, ...]:
        """The weights of all layers with the factors of the group, [layers]."""
        group = zip(self.weights[self.first : self.end], factors, strict=True)
        moved = tuple(weight * factor for weight, factor in group)
        return self.weights[: self.first] + moved + self.weights[self.end :]


@dataclass(frozen=True, slots=True)
class EvolKV(Solver):
    """Evolve the budgets of one group of layers after another, starting from equal ones.

    Bytes that no level uses are spent where they remove most predicted loss.

    Args:
        objective: As in ``OptunaSearch``; the paper takes a score of the task. ``None`` takes the
            problem's predicted loss, and the search ends once a plan is proven to be the best.
        group_size: Neighbouring layers of a group.
        trials_per_group: Plans that are measured for each group.
        seed: Seed of the evolution.
        storage: As in ``OptunaSearch``; each group is a study of its own. Do not resume a
            stranger's: it may run code, as with ``CmaEs``.
        study_name: How the names of these studies begin.

    Raises:
        TypeError: If a number is not an integer or the objective cannot be called.
        ValueError: If a count is below 1 or the seed is negative.
    """

    objective: Objective | None = field(default=None, repr=False)
    group_size: int = 8
    trials_per_group: int = 40
    seed: int = 0
    storage: FilePath | None = field(default=None, repr=False)
    study_name: str = field(default="EvolKV", repr=False)

    def __post_init__(self) -> None:
        """Check the objective and the numbers."""
        check_objective(self.objective)
        check_count("group_size", self.group_size)
        check_count("trials_per_group", self.trials_per_group)
        check_count("seed", self.seed, least=0)

    def choose(self, problem: Problem) -> Choice:
        """Evolve group by group, and keep the best plan of each.

        Raises:
            ValueError: If there is an objective but no model to make plans for, or if it never
                gave a number.
        """
        layers = problem.shape[0]
        weights = (1.0,) * layers
        for first in range(0, layers, self.group_size):
            group = GroupBudgets(weights, first, min(first + self.group_size, layers))
            best = self._evolve(problem, group).best
            weights = group.moved([value for _, value in best.parameters])
        return Choice(best.levels, Status.LIMIT_REACHED)

    def _evolve(self, problem: Problem, group: GroupBudgets) -> SearchResult:
        """Measure plans that differ in the budgets of one group."""
        from kvbudget.allocator.solve import solver_name

        task = Task(
            original=problem,
            reduction=reduce_for(problem, self),
            solver=solver_name(self),
            objective=self.objective,
            parameters=group,
            starts=tuple(Start(values) for values in group.starts(problem)),
            sampler=CmaEs(),
            trials=self.trials_per_group,
            seed=self.seed,
            storage=self.storage,
            study_name=f"{self.study_name}, layers {group.first} to {group.end - 1}",
            enough=enough_for(problem, self.objective),
        )
        return result_of(task)
