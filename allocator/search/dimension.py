"""One searched number: its name, its range, and how Optuna is asked for it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna


class Dimension(ABC):
    """A number to search."""

    __slots__ = ()

    name: str

    @abstractmethod
    def suggest(self, trial: "optuna.Trial") -> float:
        """Ask a trial for the number."""


@dataclass(frozen=True, slots=True)
class Real(Dimension):
    """A real number in ``low..high``.

    Args:
        name: Name of the number in the study.
        low: Least value.
        high: Greatest value.
        log: Whether to search its logarithm, for factors.
    """

    name: str
    low: float
    high: float
    log: bool = False

    def suggest(self, trial: "optuna.Trial") -> float:
        """Ask a trial for the number."""
        return float(trial.suggest_float(self.name, self.low, self.high, log=self.log))


@dataclass(frozen=True, slots=True)
class Whole(Dimension):
    """A whole number in ``0..most``.

    Args:
        name: Name of the number in the study.
        most: Greatest value.
    """

    name: str
    most: int

    def suggest(self, trial: "optuna.Trial") -> float:
        """Ask a trial for the number."""
        return float(trial.suggest_int(self.name, 0, self.most))
