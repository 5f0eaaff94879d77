"""How the next values are drawn from what earlier trials gave."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kvbudget.allocator.checks import check_count

if TYPE_CHECKING:
    import optuna


class Sampler(ABC):
    """A sampler of Optuna, described by plain values so that it can be made anew at each trial.

    One that cannot search memory and value together unsets ``searches_fronts``.
    """

    __slots__ = ()

    searches_fronts: ClassVar[bool] = True

    @abstractmethod
    def build(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Make the sampler of one trial."""


@dataclass(frozen=True, slots=True)
class Tpe(Sampler):
    """Tree-structured Parzen estimators: where good trials lie dense and bad ones do not.

    Args:
        startup_trials: Trials drawn at random before the first estimate.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.

    Reference:
        Bergstra, Bardenet, Bengio and Kégl, "Algorithms for Hyper-Parameter Optimization",
        NeurIPS 2011.
    """

    startup_trials: int = 10

    def __post_init__(self) -> None:
        """Check the count."""
        check_count("startup_trials", self.startup_trials)

    def build(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Make the sampler of one trial."""
        import optuna

        return optuna.samplers.TPESampler(n_startup_trials=self.startup_trials, seed=seed)


@dataclass(frozen=True, slots=True)
class CmaEs(Sampler):
    """Covariance matrix adaptation; for one objective and real numbers.

    Warning:
        Optuna keeps the state of this sampler in the storage as a pickle, which can run any code
        when it is read. Resume only storages that you trust.

    Args:
        population: Trials of a generation; 0 lets it depend on the number of dimensions.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 0.

    Reference:
        Hansen, "The CMA Evolution Strategy: A Tutorial", 2016. https://arxiv.org/abs/1604.00772
    """

    searches_fronts: ClassVar[bool] = False

    population: int = 0

    def __post_init__(self) -> None:
        """Check the count."""
        check_count("population", self.population, least=0)

    def build(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Make the sampler of one trial; its state lies in the study."""
        import optuna

        return optuna.samplers.CmaEsSampler(
            seed=seed, popsize=self.population or None, warn_independent_sampling=False
        )


@dataclass(frozen=True, slots=True)
class NsgaII(Sampler):
    """A genetic algorithm that ranks by domination; for several objectives.

    Args:
        population: Trials of a generation.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 2.

    Reference:
        Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm:
        NSGA-II", IEEE Transactions on Evolutionary Computation, 2002.
        https://doi.org/10.1109/4235.996017
    """

    population: int = 20

    def __post_init__(self) -> None:
        """Check the count."""
        check_count("population", self.population, least=2)

    def build(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Make the sampler of one trial; its population lies in the study."""
        import optuna

        return optuna.samplers.NSGAIISampler(population_size=self.population, seed=seed)


def check_front(sampler: Sampler) -> None:
    """Refuse a sampler that knows one objective only.

    Raises:
        ValueError: If it cannot search memory and value together.
    """
    if not sampler.searches_fronts:
        raise ValueError(
            f"`sampler` must search two objectives, but got {sampler!r}."
            " Pass Tpe() or NsgaII(), or call search_plans."
        )


def seed_of_trial(seed: int, number: int) -> int:
    """Seed of one trial.

    A trial depends on the seed, its number and the trials before it, so a search that was
    interrupted goes on as if it had not been, and two processes never draw the same values.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
