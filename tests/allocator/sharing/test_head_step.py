import numpy as np
import pytest

from kvbudget.allocator import Problem, Profile
from kvbudget.allocator.sharing.head_step import divide_layers, sums


def test_values_are_summed_by_layer() -> None:
    assert sums([1, 2, 3, 4, 5, 6], [0, 0, 1, 2, 2, 2]) == [3, 3, 15]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_layers_with_one_cache_get_their_shares_whatever_alpha_is(alpha: float) -> None:
    loss = np.arange(40, -1, -1.0) ** 2
    problem = Problem([loss] * 3, [np.arange(41)] * 3, 60)
    assert divide_layers(problem, [3.0, 2.0, 1.0], alpha, 0).tolist() == [30, 20, 10]


def test_a_window_is_held_before_anything_is_divided(profile: Profile) -> None:
    problem = Problem.from_profile(profile, budget=24 * 60, context_tokens=100)
    levels = divide_layers(problem, [1.0, 0.0, 0.0], 1.0, 10)
    # six windows of 10 tokens take all of the 60
    assert levels.tolist() == [0] * 6
