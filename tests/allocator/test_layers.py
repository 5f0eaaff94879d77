import numpy as np

from kvbudget.allocator import Problem, Profile
from kvbudget.allocator.layers import (
    layer_of_units,
    mean_in_layers,
    on_grid,
    sum_in_layers,
    units_in_layers,
)

NUMBERS = np.arange(1.0, 7.0)


def test_units_are_numbered_layer_by_layer(problem: Problem) -> None:
    assert layer_of_units(problem).tolist() == [0, 0, 1, 1, 2, 2]
    assert units_in_layers(problem).tolist() == [2, 2, 2]
    assert on_grid(problem, NUMBERS).tolist() == [[1, 2], [3, 4], [5, 6]]


def test_layers_may_have_unequal_numbers_of_units(unequal_profile: Profile) -> None:
    problem = Problem.from_profile(unequal_profile, budget="50%", context_tokens=100)
    assert len(problem.loss) == 6
    assert problem.shape == (3, 3)
    assert layer_of_units(problem).tolist() == [0, 0, 0, 1, 2, 2]
    assert units_in_layers(problem).tolist() == [3, 1, 2]
    assert on_grid(problem, NUMBERS).tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]
    assert sum_in_layers(problem, NUMBERS).tolist() == [6, 4, 11]
    assert mean_in_layers(problem, NUMBERS).tolist() == [2, 4, 5.5]
    assert sum_in_layers(problem, problem.cost_bytes).shape == (3, 4)


def test_without_an_origin_every_unit_is_a_layer() -> None:
    problem = Problem([[1.0, 0.0]] * 2, [[0, 1]] * 2, 1)
    assert layer_of_units(problem).tolist() == [0, 1]
    assert units_in_layers(problem).tolist() == [1, 1]
    assert on_grid(problem, np.array([3.0, 4.0])).tolist() == [[3], [4]]
    assert mean_in_layers(problem, np.array([3.0, 4.0])).tolist() == [3, 4]
