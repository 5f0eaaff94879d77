"""The suite for other people's solvers lets good ones pass and catches bad ones."""

import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from kvbudget.allocator import Choice, Problem, Solver, Status, hull_bound
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.risk import CVaR
from kvbudget.allocator.solvers import Greedy, Hull
from kvbudget.testing import SolverCheck, check_solver, solver_checks

CALLS = itertools.count()


def greedy_levels(problem: Problem) -> Any:
    """Good levels for the problem without its constraints and its risk."""
    plain = Problem(problem.loss, problem.cost_bytes, problem.budget_bytes)
    return Greedy().choose(plain).levels


@dataclass(frozen=True, slots=True)
class Frugal(Solver):
    """A poor solver, but an honest one: one step after the other, unit by unit."""

    def choose(self, problem: Problem) -> Choice:
        levels = np.zeros(len(problem.loss), dtype=np.int64)
        left = problem.budget_bytes - problem.floor_bytes
        for unit, row in enumerate(problem.cost_bytes):
            levels[unit] = np.flatnonzero(row - row[0] <= left)[-1]
            left -= int(row[levels[unit]] - row[0])
        return Choice(levels)


@dataclass(frozen=True, slots=True)
class OverBudget(Solver):
    def choose(self, problem: Problem) -> Choice:
        return Choice(np.full(len(problem.loss), problem.loss.shape[1] - 1))


@dataclass(frozen=True, slots=True)
class OverByOneByte(Solver):
    def choose(self, problem: Problem) -> Choice:
        richer = Problem(problem.loss, problem.cost_bytes, problem.budget_bytes + 1)
        return Frugal().choose(richer)


@dataclass(frozen=True, slots=True)
class OwnLossAsBound(Solver):
    def choose(self, problem: Problem) -> Choice:
        levels = greedy_levels(problem)
        return Choice(levels, bound=problem.total_loss(levels))


@dataclass(frozen=True, slots=True)
class BoundAboveItsLoss(Solver):
    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem), bound=np.abs(problem.loss).sum() + 1.0)


@dataclass(frozen=True, slots=True)
class NanBound(Solver):
    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem), bound=float("nan"))


@dataclass(frozen=True, slots=True)
class FalselyOptimal(Solver):
    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem), Status.OPTIMAL)


@dataclass(frozen=True, slots=True)
class FalselyInfeasible(Solver):
    def choose(self, problem: Problem) -> Choice:
        return Choice(np.empty(0, dtype=np.int64), Status.INFEASIBLE)


@dataclass(frozen=True, slots=True)
class FalselyRelaxed(Solver):
    bounds_relaxation: ClassVar[bool] = True

    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem), bound=hull_bound(problem) - 1.0)


@dataclass(frozen=True, slots=True)
class Different(Solver):
    """Every other call it takes the lowest levels."""

    def choose(self, problem: Problem) -> Choice:
        levels = greedy_levels(problem)
        rich = problem.budget_bytes >= problem.ceiling_bytes
        return Choice(levels if rich or next(CALLS) % 2 else 0 * levels)


@dataclass(frozen=True, slots=True)
class AnotherBound(Solver):
    """The levels stay, but what it proves changes from call to call."""

    bounds_relaxation: ClassVar[bool] = True

    def choose(self, problem: Problem) -> Choice:
        good = Hull().choose(problem)
        return Choice(good.levels, bound=good.bound - 1e-10 * (next(CALLS) % 2) * abs(good.bound))


@dataclass(frozen=True, slots=True)
class Scribbler(Solver):
    def choose(self, problem: Problem) -> Choice:
        levels = greedy_levels(problem)
        problem.loss.flags.writeable = True
        problem.loss[:] += 1.0
        return Choice(levels)


@dataclass(frozen=True, slots=True)
class Unlocker(Solver):
    def choose(self, problem: Problem) -> Choice:
        problem.cost_bytes.flags.writeable = True
        return Choice(greedy_levels(problem))


@dataclass(frozen=True, slots=True)
class Broken(Solver):
    """Levels of a wrong type."""

    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem).astype(np.float64))


@dataclass(frozen=True, slots=True)
class BareLevels(Solver):
    def choose(self, problem: Problem) -> Choice:
        return greedy_levels(problem)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class NeedsTwoLevels(Solver):
    def choose(self, problem: Problem) -> Choice:
        if np.diff(problem.loss).min() > 0:
            raise AssertionError
        return Choice(greedy_levels(problem))


@dataclass(frozen=True, slots=True)
class IgnoresTheLastLevel(Solver):
    def choose(self, problem: Problem) -> Choice:
        last = max(problem.loss.shape[1] - 1, 1)
        loss, cost = problem.loss[:, :last], problem.cost_bytes[:, :last]
        return Choice(greedy_levels(Problem(loss, cost, problem.budget_bytes)))


@dataclass(frozen=True, slots=True)
class AddsInFloats(Solver):
    def choose(self, problem: Problem) -> Choice:
        fits = problem.cost_bytes.astype(float).sum(axis=0) <= problem.budget_bytes
        return Choice(np.full(len(problem.loss), np.flatnonzero(fits)[-1]))


@dataclass(frozen=True, slots=True)
class DividesByTheLoss(Solver):
    def choose(self, problem: Problem) -> Choice:
        assert 1.0 / problem.loss[:, 0].sum().item()
        return Choice(greedy_levels(problem))


@dataclass(frozen=True, slots=True)
class HonoursLimitsInNameOnly(Solver):
    honours: ClassVar[frozenset[type]] = frozenset({ByteLimit})

    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem))


@dataclass(frozen=True, slots=True)
class HonoursRiskInNameOnly(Solver):
    """The best plan for the mean, sold as the best one for the worst samples."""

    honours: ClassVar[frozenset[type]] = frozenset({CVaR})

    def choose(self, problem: Problem) -> Choice:
        levels = greedy_levels(problem)
        return Choice(levels, bound=problem.total_loss(levels) if problem.risk == CVaR(0.5) else -9)


@dataclass(slots=True)
class NotFrozen(Solver):
    power: float = 1.0

    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem))


@dataclass(slots=True, unsafe_hash=True)
class HashableButNotFrozen(Solver):
    power: float = 1.0

    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem))


@dataclass(frozen=True, slots=True)
class NeedsArguments(Solver):
    power: float

    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem))


@dataclass(frozen=True, slots=True, eq=False)
class UnlikeItsCopy(Solver):
    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem))


class Plain(Solver):
    def choose(self, problem: Problem) -> Choice:
        return Choice(greedy_levels(problem))


BAD = [
    (OverBudget(), "broke its contract: it uses"),
    (OverByOneByte(), "broke its contract: it uses"),
    (OwnLossAsBound(), "its bound .* is above"),
    (BoundAboveItsLoss(), "is above the loss"),
    (NanBound(), "bound nan"),
    (FalselyOptimal(), "it says OPTIMAL at a loss of .*, but .* is possible"),
    (FalselyInfeasible(), "it found no plan"),
    (FalselyRelaxed(), "is below the hulls'"),
    (Different(), "it gives .* and then"),
    (AnotherBound(), "with bounds"),
    (Scribbler(), "it changed the problem"),
    (Unlocker(), "it changed the problem"),
    (Broken(), "levels must be .* integers"),
    (BareLevels(), "choose must return Choice"),
    (NeedsTwoLevels(), "it raised ValueError: zero-size array .*The problem is one level:"),
    (IgnoresTheLastLevel(), "it loses .* where .* is possible"),
    (AddsInFloats(), "The problem is a byte that floats cannot see"),
    (DividesByTheLoss(), "it raised ZeroDivisionError: .*by zero. The problem is no loss:"),
    (HonoursLimitsInNameOnly(), "for layers 0, 1. The problem is a byte limit:"),
    (HonoursRiskInNameOnly(), "its bound .* is above"),
    (NotFrozen(), "must be a frozen dataclass"),
    (HashableButNotFrozen(), "must be a frozen dataclass"),
    (NeedsArguments(2.0), "must work without arguments"),
    (UnlikeItsCopy(), "must equal a copy of itself"),
    (Plain(), "must be a dataclass"),
]


@pytest.mark.parametrize(("solver", "fault"), BAD, ids=[type(solver).__name__ for solver, _ in BAD])
def test_a_bad_solver_is_told_what_is_wrong(solver: Solver, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault) as caught:
        check_solver(solver)
    assert str(caught.value).startswith(type(solver).__name__)


ALONE = {
    "it is a frozen value that needs no arguments": [NotFrozen(), Plain()],
    "a plan fits and stands between its bound and brute force": [OwnLossAsBound(), OverBudget()],
    "what it claims is true": [OwnLossAsBound(), FalselyOptimal(), FalselyRelaxed(), Broken()],
    "the same problem gets the same answer": [Different(), AnotherBound()],
    "a budget for everything removes all loss": [IgnoresTheLastLevel()],
    "a larger problem is certified": [OverBudget(), BoundAboveItsLoss()],
}


@pytest.mark.parametrize("check", solver_checks(), ids=str)
def test_every_check_catches_bad_solvers_alone(check: SolverCheck) -> None:
    for solver in ALONE[str(check)]:
        with pytest.raises(AssertionError, match=type(solver).__name__):
            check(solver)


@pytest.mark.parametrize("assert_holds", solver_checks(), ids=str)
def test_an_honest_solver_passes_each_check(assert_holds: SolverCheck) -> None:
    assert_holds(Frugal())


def test_an_example_is_not_spoilt_for_the_next_solver() -> None:
    for _ in range(2):
        with pytest.raises(AssertionError, match="The problem is one level:"):
            check_solver(Scribbler())
    assert check_solver(Frugal()) is None


def test_checks_have_names_that_differ() -> None:
    names = [str(check) for check in solver_checks()]
    assert len(set(names)) == len(names)
    assert "the same problem gets the same answer" in names


def test_fewer_examples_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counting(self: Frugal, problem: Problem) -> Choice:
        asked.append(problem)
        return Hull().choose(problem)

    monkeypatch.setattr(Frugal, "choose", counting)
    check_solver(Frugal(), examples=0)
    few = len(asked)
    check_solver(Frugal(), examples=20)
    assert 0 < few < len(asked) - few


def test_it_needs_no_test_library_and_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "from kvbudget.testing import check_solver\n"
        "from kvbudget.allocator import Greedy\n"
        "check_solver(Greedy(), examples=5)\n"
        "print([name for name in ('torch', 'transformers', 'cvxpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
