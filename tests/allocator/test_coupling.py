import cvxpy as cp
import numpy as np
import pytest

from kvbudget.allocator import Problem
from kvbudget.allocator.constraints import ByteLimit, Custom, MostCapacities
from kvbudget.allocator.coupling import TOLERANCE, custom_lines, lowest_fits, violation

LOSS, COST = [[9.0, 5.0, 1.0]] * 3, [[1, 2, 4]] * 3


def test_a_byte_too_many_is_a_violation() -> None:
    problem = Problem(LOSS, COST, 99, (ByteLimit(5, layers=(0, 2)),))
    assert violation(problem, np.array([2, 2, 0])) == ""
    assert violation(problem, np.array([2, 0, 1])) == "it uses 6 bytes of 5 for layers 0, 2"


def test_huge_bytes_are_counted_exactly() -> None:
    problem = Problem([[1.0]] * 2, [[2**60], [2**60 + 1]], 2**62, (ByteLimit(2**61),))
    assert "2,305,843,009,213,693,953 bytes of 2,305,843,009,213,693,952" in violation(
        problem, np.array([0, 0])
    )


def test_a_capacity_too_many_is_a_violation() -> None:
    problem = Problem(LOSS, COST, 99, (MostCapacities(2),))
    assert violation(problem, np.array([0, 2, 0])) == ""
    assert violation(problem, np.array([0, 1, 2])) == "it uses 3 capacities of 2"


def test_a_custom_constraint_is_judged_at_whole_levels() -> None:
    problem = Problem(LOSS, COST, 99, (Custom(lambda share: [cp.sum(share[:, 2]) <= 1]),))
    assert violation(problem, np.array([2, 1, 1])) == ""
    assert violation(problem, np.array([2, 2, 2])) == "it misses a custom constraint by 2"


def test_a_custom_constraint_may_be_missed_by_the_tolerance() -> None:
    def missed_by(amount: float) -> Problem:
        return Problem(LOSS, COST, 99, (Custom(lambda share: [share[0, 0] <= 1 - amount]),))

    levels = np.array([0, 0, 0])
    assert violation(missed_by(TOLERANCE / 2), levels) == ""
    assert violation(missed_by(TOLERANCE * 2), levels) != ""


def test_the_first_fault_is_named() -> None:
    limits = (MostCapacities(1), ByteLimit(2, layers=(0,)))
    problem = Problem(LOSS, COST, 99, limits)
    assert violation(problem, np.array([2, 1, 1])).startswith("it uses 4 bytes of 2")
    assert violation(problem, np.array([1, 0, 0])).startswith("it uses 2 capacities")


def test_the_lowest_levels_must_fit_the_budget_and_every_limit() -> None:
    assert lowest_fits(Problem(LOSS, COST, 3))
    assert not lowest_fits(Problem(LOSS, COST, 2))
    assert lowest_fits(Problem(LOSS, COST, 3, (ByteLimit(2, layers=(0, 1)),)))
    assert not lowest_fits(Problem(LOSS, COST, 9, (ByteLimit(1, layers=(0, 1)),)))


def test_lines_of_a_custom_function_must_be_linear_or_nearly_so() -> None:
    share = cp.Variable((2, 2))
    kept = custom_lines(lambda x: [x[0] == x[1], cp.norm1(x[0] - x[1]) <= 1], share)
    assert len(kept) == 2
    assert len(custom_lines(lambda x: (x >= 0,), share)) == 1
    for bent in (cp.norm(share, 2) <= 1, cp.abs(share[0, 0]) >= 1, cp.SOC(share[0, 0], share[1])):
        with pytest.raises(ValueError, match="`function` must return constraints that are linear"):
            custom_lines(lambda _, bent=bent: [bent], share)
