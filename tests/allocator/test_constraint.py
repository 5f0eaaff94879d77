from dataclasses import dataclass

import numpy as np
import pytest

from kvbudget.allocator import Constraint, Problem, Terms, constraints, solve
from kvbudget.allocator.solvers import Hull

ALL = [getattr(constraints, name) for name in constraints.__all__]


@dataclass(frozen=True, slots=True)
class EvenLevels(Constraint):
    """What a user could add: only every other level."""

    def terms(self, problem: Problem) -> Terms:
        even = np.arange(problem.loss.shape[1]) % 2 == 0
        return Terms(allowed=np.broadcast_to(even, problem.loss.shape))


def test_a_constraint_of_ones_own_holds_with_every_solver() -> None:
    problem = Problem([[9.0, 5.0, 1.0]] * 2, [[1, 2, 3]] * 2, 5, (EvenLevels(),))
    assert sorted(solve(problem, Hull()).levels.tolist()) == [0, 2]


@pytest.mark.parametrize("make", ALL)
def test_a_constraint_is_a_final_frozen_value(make: type[Constraint]) -> None:
    assert issubclass(make, Constraint)
    assert not make.__subclasses__()
    assert make.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert make.__doc__


def test_those_that_couple_units_say_so() -> None:
    assert [make.__name__ for make in ALL if make.couples] == [
        "ByteLimit",
        "Custom",
        "MostCapacities",
    ]


def test_without_terms_there_is_no_constraint() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Constraint()  # type: ignore[abstract]
