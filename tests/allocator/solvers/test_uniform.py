import numpy as np

from kvbudget.allocator import Problem, solve
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
