"""The share of caches that is shrunk, and the ratio they are shrunk to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.search import ShareAndRatio


@given(share=st.floats(0, 1), ratio=st.floats(0, 1), data=st.data())
@settings(deadline=None)
def test_any_values_fit_the_budget(
    any_problem: st.SearchStrategy[Problem], share: float, ratio: float, data: st.DataObject
) -> None:
    problem = data.draw(any_problem)
    levels = ShareAndRatio().levels(problem, np.array([share, ratio]))
    assert used_bytes(problem, levels) <= problem.budget_bytes


def test_freed_bytes_follow_importance() -> None:
    # fine levels of 1 byte; importance 1, 2, 3, 4; a budget of 40, so 10 for each
    need = np.arange(1.0, 5.0)[:, None]
    steps = np.arange(41)
    problem = Problem(need * (40 - steps), np.tile(steps, (4, 1)), 40)
    levels = ShareAndRatio().levels(problem, np.array([0.5, 0.2]))
    # two shrunk to 2 bytes free 16: 3/7 and 4/7 of them go to the others, and 1 is left to fill
    assert levels.tolist() == [2, 2, 10 + 6, 10 + 10]


def test_a_share_of_zero_gives_equal_parts() -> None:
    problem = Problem(np.outer([1, 5, 9], [4, 3, 2, 1, 0]), np.tile([0, 1, 2, 3, 4], (3, 1)), 6)
    assert ShareAndRatio().levels(problem, np.array([0.0, 0.5])).tolist() == [2, 2, 2]


def test_equal_parts_are_tried_after_the_best_of_the_grid(layered: Problem) -> None:
    kind = ShareAndRatio()
    best, equal = kind.starts(layered)
    losses = [layered.total_loss(kind.levels(layered, np.array(x))) for x in (best, equal)]
    assert equal == (0.0, 1.0)
    assert losses[0] < losses[1]


def test_a_grid_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        ShareAndRatio(steps=0)
