import numpy as np

from kvbudget.allocator import Problem, WorstSample, solve
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.solvers import Uniform

LOSS = [[9.0, 5.0, 1.0], [9.0, 8.0, 7.0]]
COST = [[1, 2, 3], [1, 2, 9]]


def test_all_units_get_the_largest_level_they_can_afford_together() -> None:
    for budget, level in ((2, 0), (3, 0), (4, 1), (11, 1), (12, 2), (99, 2)):
        levels = solve(Problem(LOSS, COST, budget), Uniform()).levels
        assert levels.tolist() == [level, level]


def test_what_is_left_stays_unused() -> None:
    assert solve(Problem(LOSS, COST, 11), Uniform()).used_bytes == 4


def test_levels_are_int64() -> None:
    assert Uniform().choose(Problem(LOSS, COST, 4)).levels.dtype == np.int64


def test_the_common_level_fits_every_limit() -> None:
    for most, level in ((1, 0), (2, 1), (8, 1), (9, 2)):
        problem = Problem(LOSS, COST, 99, (ByteLimit(most, layers=(1,)),))
        assert solve(problem, Uniform()).levels.tolist() == [level, level]


def test_a_risk_changes_what_is_lost_but_not_the_levels() -> None:
    samples = np.array([LOSS, np.array(LOSS) + 2])
    problem = Problem(LOSS, COST, 4, sample_loss=samples, risk=WorstSample())
    solution = solve(problem, Uniform())
    assert solution.levels.tolist() == [1, 1]
    assert solution.loss == 17.0
