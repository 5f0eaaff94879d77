import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Problem, Profile, terms_of
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
)
from kvbudget.allocator.terms import join


def test_the_terms_of_all_constraints_are_put_together(profile: Profile) -> None:
    def function(share: object) -> list[object]:
        return []

    problem = Problem.from_profile(
        profile,
        budget="60%",
        context_tokens=100,
        constraints=(
            LeastTokens(20, layers=(0,)),
            MostTokens(60),
            EqualInLayer((0,)),
            ByteLimit(500, layers=(0,)),
            ByteLimit(700, layers=(1,)),
            MostCapacities(2),
            Custom(function),
        ),
    )
    terms = terms_of(problem)
    assert terms.allowed is not None
    assert terms.group is not None
    assert terms.allowed[0].tolist() == [False, True, True, False]
    assert terms.allowed[5].tolist() == [True, True, True, False]
    assert terms.group.tolist() == [0, 0, 2, 3, 4, 5]
    assert [limit.most_bytes for limit in terms.limits] == [500, 700]
    assert [distinct.most for distinct in terms.distinct] == [2]
    assert terms.custom == (function,)


def test_without_constraints_there_are_none(problem: Problem) -> None:
    terms = terms_of(problem)
    assert terms.allowed is None
    assert terms.group is None
    assert terms.limits == terms.distinct == terms.custom == ()


groups = st.lists(st.integers(0, 5), min_size=6, max_size=6)


@given(st.lists(groups, min_size=1, max_size=3))
def test_joined_groups_are_what_a_chain_of_ties_connects(each: list[list[int]]) -> None:
    joined = join([np.array(group) for group in each])
    assert joined is not None
    tied = np.logical_or.reduce([np.equal.outer(group, group) for group in each])
    for _ in range(6):
        tied = tied @ tied
    assert (np.equal.outer(joined, joined) == tied).all()


def test_no_groups_join_to_none() -> None:
    assert join([]) is None


def test_joining_leaves_the_groups_as_they_were() -> None:
    group = np.array([0, 1, 1])
    join([group, np.array([0, 0, 1])])
    assert group.tolist() == [0, 1, 1]


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_constraints_does_not_matter(profile: Profile, order: int) -> None:
    limits = (LeastTokens(20), MostTokens(60), EqualInLayer((1,)))[::order]
    problem = Problem.from_profile(profile, budget="60%", context_tokens=100, constraints=limits)
    terms = terms_of(problem)
    assert terms.allowed is not None
    assert terms.allowed.sum(axis=1).tolist() == [2, 2, 3, 3, 2, 2]
