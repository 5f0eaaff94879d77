from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from kvbudget.allocator import Choice, Problem, Solver, solvers
from kvbudget.allocator.constraints import ByteLimit, Custom, LeastTokens, MostCapacities
from kvbudget.allocator.solver_choice import solver_for
from kvbudget.allocator.solvers import Hull, LinearProgram


@dataclass(frozen=True, slots=True)
class Able(Solver):
    """Honours few capacities."""

    honours: ClassVar[Any] = frozenset({MostCapacities})

    def choose(self, problem: Problem) -> Choice:
        raise AssertionError


@dataclass(frozen=True, slots=True)
class Abler(Solver):
    """Honours more."""

    honours: ClassVar[Any] = frozenset({ByteLimit, MostCapacities})

    def choose(self, problem: Problem) -> Choice:
        raise AssertionError


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solvers that nobody prefers beside the hull."""
    monkeypatch.setattr(solvers, "__all__", ["Able", "Abler", "Hull"])
    monkeypatch.setattr(solvers, "Able", Able, raising=False)
    monkeypatch.setattr(solvers, "Abler", Abler, raising=False)


def test_the_first_that_honours_the_constraints_is_taken() -> None:
    assert solver_for(()) == Hull()
    assert solver_for((LeastTokens(3),)) == Hull()
    assert solver_for((ByteLimit("50%"), LeastTokens(3))) == Hull()
    assert solver_for((ByteLimit("50%"), MostCapacities(2))) == LinearProgram()


@pytest.mark.usefixtures("others")
def test_one_that_nobody_prefers_will_do() -> None:
    assert solver_for((MostCapacities(2),)) == Able()
    assert solver_for((ByteLimit("50%"),)) == Hull()


@pytest.mark.usefixtures("others")
def test_one_that_honours_only_some_will_not_do() -> None:
    assert solver_for((ByteLimit("50%"), MostCapacities(2))) == Abler()


@pytest.mark.usefixtures("others")
def test_where_none_can_it_is_the_hull_whose_refusal_says_so() -> None:
    assert solver_for((Custom(lambda share: []),)) == Hull()
