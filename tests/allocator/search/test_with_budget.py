"""The budget as a searched number."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.search import PriceAndGroups
from kvbudget.allocator.search.with_budget import WithBudget, at_share


@given(share=st.floats(0, 1), data=st.data())
@settings(deadline=None)
def test_a_budget_lies_between_the_lowest_levels_and_the_whole(
    any_problem: st.SearchStrategy[Problem], share: float, data: st.DataObject
) -> None:
    problem = data.draw(any_problem)
    part = at_share(problem, share).budget_bytes
    assert problem.floor_bytes <= part <= problem.budget_bytes
    assert at_share(problem, 0.0).budget_bytes == problem.floor_bytes
    assert at_share(problem, 1.0) == problem


def test_levels_fit_the_searched_budget(layered: Problem) -> None:
    kind = WithBudget(PriceAndGroups())
    values = np.array([*kind.inner.starts(layered)[0], 0.3])
    assert used_bytes(layered, kind.levels(layered, values)) == 120


def test_starts_are_inner_starts_with_a_share(layered: Problem) -> None:
    kind = WithBudget(PriceAndGroups())
    starts = kind.starts(layered)
    assert [start[-1] for start in starts] == [1.0, 0.5, 0.25, 0.75, 0.0]
    assert all(len(start) == len(kind.dimensions(layered)) for start in starts)
