"""From bytes to levels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.search.targets import (
    highest_within,
    levels_near,
    shared_bytes,
)


def test_the_highest_level_within_a_target_is_taken() -> None:
    cost = np.array([[1, 3, 3, 9]] * 4)
    assert highest_within(cost, np.array([0.5, 1.0, 3.5, 99.0])).tolist() == [0, 0, 2, 3]


@given(data=st.data())
@settings(deadline=None)
def test_whatever_is_wanted_fits_in_the_end(
    any_problem: st.SearchStrategy[Problem], data: st.DataObject
) -> None:
    problem = data.draw(any_problem)
    units = len(problem.loss)
    wanted = data.draw(st.lists(st.floats(0, 1e6), min_size=units, max_size=units))
    levels = levels_near(problem, np.array(wanted))
    assert used_bytes(problem, levels) <= problem.budget_bytes


@given(total=st.integers(0, 2**62), weight=st.lists(st.floats(0, 1e300), min_size=1, max_size=9))
def test_shares_add_up_to_the_total(total: int, weight: list[float]) -> None:
    parts = shared_bytes(total, np.array(weight))
    assert abs(parts.sum() - total) <= 1e-12 * total
    assert (parts >= 0).all()


def test_weights_of_zero_share_equally() -> None:
    assert shared_bytes(6, np.zeros(3)).tolist() == [2.0, 2.0, 2.0]
