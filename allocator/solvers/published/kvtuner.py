"""One level for each group of equally sensitive layers, found by a genetic algorithm.

A reconstruction: the paper chooses pairs of bits for keys and values; here a layer chooses a level
of its menu. Levels that another one of the layer beats are left out, layers are clustered by how
much they lose, and NSGA-II searches the levels of the groups for little loss and little memory,
with the budget as a constraint. All heads of a layer share a level. Nothing spends the rest of the
budget. How the paper measures that layers are equally sensitive was not read; here it is the mean
loss over the menu.

Reference:
    Li, Xing, Li, Qu, Zhen, Yao, Liu, Pan and Yuan, "KVTuner: Sensitivity-Aware Layer-Wise
    Mixed-Precision KV Cache Quantization for Efficient and Nearly Lossless LLM Inference", ICML
    2025. https://arxiv.org/abs/2502.04420
"""

from dataclasses import dataclass, field

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.checks import check_count
from kvbudget.allocator.files import FilePath
from kvbudget.allocator.layers import layer_of_units, on_grid, sum_in_layers, units_in_layers
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.search.dimension import Dimension, Whole
from kvbudget.allocator.search.kinds import check_objective
from kvbudget.allocator.search.objective import Objective
from kvbudget.allocator.search.parameters import Parameters
from kvbudget.allocator.search.sampler import NsgaII
from kvbudget.allocator.search.search_plans import reduce_for, result_of
from kvbudget.allocator.search.task import Start, Task, enough_for
from kvbudget.allocator.sharing.clusters import cluster
from kvbudget.allocator.solver import Choice, Solver
from kvbudget.allocator.status import Status


@dataclass(frozen=True, slots=True)
class GroupLevels(Parameters):
    """One level for each group of layers.

    Args:
        group: Group of each layer, [layers].
        menus: Levels of a group's layers at each of its choices, [groups, choices, layers]; the
            choices of a group are those that differ for one of its layers, smallest first.
        common: Choice of each group that stands for each level, [groups, levels].
    """

    group: tuple[int, ...]
    menus: tuple[tuple[tuple[int, ...], ...], ...]
    common: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, problem: Problem, most_groups: int) -> "GroupLevels":
        """Prune the menus of the layers and cluster the layers."""
        group, best = layer_groups(problem, most_groups), worthwhile(problem)
        menus, common = [], []
        for number in range(int(group.max()) + 1):
            menu, place = np.unique(best[group == number], axis=1, return_inverse=True)
            menus.append(tuple(map(tuple, menu.T.tolist())))
            common.append(tuple(place.ravel().tolist()))
        return cls(tuple(group.tolist()), tuple(menus), tuple(common))

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """The choice of each group."""
        return tuple(Whole(f"group {i}", len(menu) - 1) for i, menu in enumerate(self.menus))

    def starts(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """The largest level that all layers can have."""
        fits = problem.cost_bytes.sum(axis=0) <= problem.budget_bytes  # [levels]
        level = int(np.flatnonzero(fits)[-1])
        return (tuple(float(places[level]) for places in self.common),)

    def levels(self, problem: Problem, values: Floats) -> Ints:
        """Give every unit the level of its layer's group; the budget may not hold."""
        group = np.array(self.group)
        levels = np.zeros(len(group), dtype=np.int64)
        for number, choice in enumerate(values.astype(np.int64).tolist()):
            levels[group == number] = self.menus[number][choice]
        return levels[layer_of_units(problem)]


@dataclass(frozen=True, slots=True)
class KVTuner(Solver):
    """Search the levels of a few groups of layers with NSGA-II; keep the best that fits.

    Args:
        objective: As in ``OptunaSearch``; the paper takes a score of the task. ``None`` takes the
            problem's predicted loss, and the search ends once a plan is proven to be the best.
        groups: Most groups of equally sensitive layers. The paper has 4 to 8; in 100 trials the
            search of more groups finds less.
        trials: Plans that are tried; the paper has 100.
        population: Plans of a generation.
        seed: Seed of the algorithm.
        storage: As in ``OptunaSearch``.
        study_name: Name of the study in the storage.

    Raises:
        TypeError: If a number is not an integer or the objective cannot be called.
        ValueError: If a count is too small or the seed is negative.
    """

    objective: Objective | None = field(default=None, repr=False)
    groups: int = 4
    trials: int = 100
    population: int = 20
    seed: int = 0
    storage: FilePath | None = field(default=None, repr=False)
    study_name: str = field(default="KVTuner", repr=False)

    def __post_init__(self) -> None:
        """Check the objective and the numbers."""
        check_objective(self.objective)
        check_count("groups", self.groups)
        check_count("trials", self.trials)
        check_count("population", self.population, least=2)
        check_count("seed", self.seed, least=0)

    def choose(self, problem: Problem) -> Choice:
        """Search and return the levels with the lowest value of those that fit.

        Raises:
            ValueError: If there is an objective but no model to make plans for, or if it never
                gave a number.
        """
        from kvbudget.allocator.solve import solver_name

        parameters = GroupLevels.of(problem, self.groups)
        task = Task(
            original=problem,
            reduction=reduce_for(problem, self),
            solver=solver_name(self),
            objective=self.objective,
            parameters=parameters,
            starts=tuple(Start(values) for values in parameters.starts(problem)),
            sampler=NsgaII(self.population),
            trials=self.trials,
            seed=self.seed,
            storage=self.storage,
            study_name=self.study_name,
            enough=enough_for(problem, self.objective),
            bytes_too=True,
        )
        return Choice(result_of(task).best.levels, Status.LIMIT_REACHED)


def worthwhile(problem: Problem) -> Ints:
    """For each level of a layer the one that is no larger and loses least, int64 [layers, levels].

    A level that costs as much as a higher one stands for that one; one that loses as much as a
    lower one stands for that one. What is left is the layer's Pareto set.
    """
    cost = sum_in_layers(problem, problem.cost_bytes)
    loss = sum_in_layers(problem, problem.loss)
    highest = (cost[:, None, :] <= cost[:, :, None]).sum(axis=2) - 1
    reached = np.take_along_axis(loss, highest, axis=1)
    lowest: Ints = (loss[:, None, :] <= reached[:, :, None]).argmax(axis=2)
    return lowest


def layer_groups(problem: Problem, most_groups: int) -> Ints:
    """Group of each layer, int64 [layers], numbered from the least sensitive."""
    lost = on_grid(problem, problem.loss - problem.loss[:, -1:])
    values = units_in_layers(problem) * lost.shape[2]
    return cluster(lost.reshape(len(lost), -1).sum(axis=1) / values, most_groups)
