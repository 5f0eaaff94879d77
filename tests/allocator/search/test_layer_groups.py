"""Budgets of layer groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Hull, Problem
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.search import LayerGroups


@given(size=st.integers(1, 6), data=st.data())
@settings(deadline=None)
def test_any_factors_fit_the_budget(
    any_problem: st.SearchStrategy[Problem], size: int, data: st.DataObject
) -> None:
    problem = data.draw(any_problem)
    kind = LayerGroups(group_size=size)
    count = len(kind.dimensions(problem))
    factors = st.lists(st.floats(1 / 8, 8), min_size=count, max_size=count)
    levels = kind.levels(problem, np.array(data.draw(factors)))
    assert used_bytes(problem, levels) <= problem.budget_bytes


def test_groups_of_one_layer_start_as_the_plan_of_the_hull(layered: Problem) -> None:
    kind = LayerGroups(group_size=1)
    levels = kind.levels(layered, np.array(kind.starts(layered)[0]))
    assert levels.tolist() == Hull().choose(layered).levels.tolist()


def test_layers_of_a_group_share_a_level_where_the_budget_comes_out_even() -> None:
    problem = Problem(np.tile([3.0, 2.0, 1.0, 0.0], (4, 1)), np.tile([0, 1, 2, 3], (4, 1)), 8)
    levels = LayerGroups(group_size=2).levels(problem, np.ones(2))
    assert levels.tolist() == [3, 3, 1, 1]


def test_a_group_with_a_larger_factor_gets_more_memory(layered: Problem) -> None:
    kind = LayerGroups(group_size=6)
    fair = kind.levels(layered, np.ones(2))
    first = kind.levels(layered, np.array([4.0, 1.0]))
    assert first[:6].sum() > fair[:6].sum()
    assert first[6:].sum() < fair[6:].sum()


def test_the_last_group_may_be_smaller(layered: Problem) -> None:
    kind = LayerGroups(group_size=5)
    assert len(kind.dimensions(layered)) == len(kind.starts(layered)[0]) == 3


@pytest.mark.parametrize("settings", [{"group_size": 0}, {"most_factor": 0.5}])
def test_settings_that_leave_nothing_to_search_are_refused(settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        LayerGroups(**settings)  # type: ignore[arg-type]
