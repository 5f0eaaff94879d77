"""Factors on the losses of layer groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Hull, Problem, WorstSample
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.search import PriceAndGroups


@given(data=st.data())
@settings(deadline=None)
def test_all_factors_one_are_exactly_the_plan_of_the_hull(
    any_problem: st.SearchStrategy[Problem], data: st.DataObject
) -> None:
    problem = data.draw(any_problem)
    kind = PriceAndGroups()
    levels = kind.levels(problem, np.array(kind.starts(problem)[0]))
    assert levels.tolist() == Hull().choose(problem).levels.tolist()


@given(data=st.data())
@settings(deadline=None)
def test_any_factors_fit_the_budget(
    any_problem: st.SearchStrategy[Problem], data: st.DataObject
) -> None:
    problem = data.draw(any_problem)
    kind = PriceAndGroups(groups=3)
    count = len(kind.dimensions(problem))
    factors = st.lists(st.floats(1 / 8, 8), min_size=count, max_size=count)
    assert used_bytes(problem, kind.levels(problem, np.array(data.draw(factors)))) <= (
        problem.budget_bytes
    )


def test_a_group_with_a_larger_factor_gets_more_memory(layered: Problem) -> None:
    kind = PriceAndGroups(groups=3)
    fair = kind.levels(layered, np.ones(3))
    first = kind.levels(layered, np.array([8.0, 1.0, 1.0]))
    assert first[:4].sum() > fair[:4].sum()
    assert first[4:].sum() < fair[4:].sum()


def test_only_the_proportions_of_the_factors_count(layered: Problem) -> None:
    kind = PriceAndGroups(groups=2)
    one, four = (kind.levels(layered, np.array([2.0, 1.0]) * scale) for scale in (1.0, 4.0))
    assert one.tolist() == four.tolist()


def test_losses_as_large_as_a_problem_allows_can_be_weighted() -> None:
    problem = Problem([[1e290, 0.0], [9e289, 0.0]], [[0, 4], [0, 4]], 4)
    kind = PriceAndGroups(groups=2)
    assert kind.levels(problem, np.array([1.0, 8.0])).tolist() == [0, 1]


def test_losses_below_zero_can_be_weighted_under_a_risk() -> None:
    loss = np.array([[0.0, -4.0], [0.0, -5.0]])
    problem = Problem(loss, [[0, 4], [0, 4]], 4, sample_loss=loss[None], risk=WorstSample())
    kind = PriceAndGroups(groups=2)
    assert kind.levels(problem, np.array([1.0, 1.0])).tolist() == [0, 1]
    assert kind.levels(problem, np.array([8.0, 1.0])).tolist() == [1, 0]


def test_there_is_at_most_one_group_per_layer(layered: Problem, problem: Problem) -> None:
    assert len(PriceAndGroups(groups=50).dimensions(layered)) == 12
    assert len(PriceAndGroups(groups=50).dimensions(problem)) == 3
    assert len(PriceAndGroups().starts(problem)[0]) == 3


def test_heads_of_a_layer_share_a_factor(problem: Problem) -> None:
    loss = np.tile([3.0, 2.0, 1.0, 0.0], (6, 1))
    flat = Problem(loss, problem.cost_bytes, problem.budget_bytes, origin=problem.origin)
    levels = PriceAndGroups(groups=3).levels(flat, np.array([8.0, 1.0, 1.0])).reshape(3, 2)
    assert levels[0].tolist() == [2, 2]
    assert levels[2].max() < 2


@pytest.mark.parametrize("settings", [{"groups": 0}, {"most_factor": 1.0}, {"most_factor": -2}])
def test_settings_that_leave_nothing_to_search_are_refused(settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        PriceAndGroups(**settings)  # type: ignore[arg-type]
