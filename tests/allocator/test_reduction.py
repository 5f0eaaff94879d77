import itertools
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Constraint, Problem, Profile, Terms, running_minimum, terms_of
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    Protected,
)
from kvbudget.allocator.coupling import violation
from kvbudget.allocator.reduction import nearest_allowed, number, reduce

INF = np.inf


@dataclass(frozen=True, slots=True, eq=False)
class Asked(Constraint):
    """Any terms."""

    held: Terms

    def terms(self, problem: Problem) -> Terms:
        return self.held


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Tiny problems with forbidden levels, tied units and infinite losses."""
    units, levels = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    grid = st.lists(
        st.lists(st.integers(0, 9), min_size=levels, max_size=levels),
        min_size=units,
        max_size=units,
    )
    loss = running_minimum(np.array(draw(grid), dtype=float))
    infinite = draw(st.lists(st.integers(0, levels), min_size=units, max_size=units))
    loss[np.arange(levels) < np.array(infinite)[:, None]] = INF
    cost = np.cumsum(draw(grid), axis=1)
    allowed = np.array(draw(grid)) > 2
    group = np.array(draw(st.lists(st.integers(0, 3), min_size=units, max_size=units)))
    most = draw(st.integers(0, int(cost[0, -1])))
    asked = Asked(Terms(allowed=allowed, group=group))
    return Problem(loss, cost, 99, (asked, ByteLimit(most + 1, layers=(0,)), MostCapacities(2)))


def choices(problem: Problem) -> list[tuple[int, ...]]:
    units, levels = problem.loss.shape
    return list(itertools.product(range(levels), repeat=units))


def outcomes(problem: Problem) -> set[tuple[float, int, bool]]:
    """Loss, bytes and honour of every choice that the menus and the ties allow."""
    terms = terms_of(problem)
    found = set()
    for levels in choices(problem):
        at = np.arange(len(levels)), np.array(levels)
        allowed = terms.allowed is None or terms.allowed[at].all()
        tied = terms.group is None or all(
            len({levels[u] for u in np.flatnonzero(terms.group == g)}) == 1 for g in terms.group
        )
        if allowed and tied and np.isfinite(problem.loss[at]).all():
            honours = not violation(problem, at[1])
            found.add((problem.loss[at].sum(), int(problem.cost_bytes[at].sum()), honours))
    return found


@settings(deadline=None)
@given(problems())
def test_a_reduced_problem_has_exactly_the_choices_that_are_allowed(problem: Problem) -> None:
    reduction = reduce(problem)
    if reduction is None:
        assert not outcomes(problem)
        return
    small = reduction.problem
    assert np.isfinite(small.loss).all()
    assert outcomes(small) == outcomes(problem)
    for levels in choices(small):
        at = np.arange(len(levels)), np.array(levels)
        expanded = reduction.expand(at[1])
        whole = np.arange(len(expanded)), expanded
        assert problem.loss[whole].sum() == small.loss[at].sum()
        assert problem.cost_bytes[whole].sum() == small.cost_bytes[at].sum()
        assert bool(violation(problem, expanded)) == bool(violation(small, at[1]))


def test_a_problem_without_anything_to_work_in_stays_the_same(problem: Problem) -> None:
    reduction = reduce(problem)
    assert reduction is not None
    assert reduction.problem is problem
    assert reduction.expand(np.array([0, 1, 2, 3, 2, 1])).tolist() == [0, 1, 2, 3, 2, 1]


def test_masked_menus_keep_an_origin_and_merged_units_do_not(profile: Profile) -> None:
    def reduced(*constraints: Constraint) -> Problem:
        problem = Problem.from_profile(
            profile, budget="60%", context_tokens=100, constraints=constraints
        )
        reduction = reduce(problem)
        assert reduction is not None
        return reduction.problem

    masked = reduced(LeastTokens(25), Protected(layers=(1,)))
    assert masked.origin is not None
    assert masked.origin.capacity_tokens[0].tolist() == [25, 25, 50, 100]
    assert masked.constraints == ()
    merged = reduced(EqualInLayer())
    assert merged.origin is None
    assert merged.loss.shape == (3, 4)


def test_samples_are_rewritten_like_the_loss(profile: Profile) -> None:
    from kvbudget.allocator import CVaR

    problem = Problem.from_profile(
        profile,
        budget="60%",
        context_tokens=100,
        constraints=(EqualInLayer(), LeastTokens(25)),
        risk=CVaR(0.5),
    )
    reduction = reduce(problem)
    assert reduction is not None
    for levels in ([0, 0, 0], [1, 2, 3], [3, 1, 0]):
        expanded = reduction.expand(np.array(levels))
        whole, small = problem.total_loss(expanded), reduction.problem.total_loss(np.array(levels))
        assert whole == pytest.approx(small, rel=1e-12)


def test_a_custom_function_sees_merged_and_masked_units_as_they_were(profile: Profile) -> None:
    seen: list[Any] = []

    def look(share: Any) -> list[Any]:
        seen.append(share.value)
        return []

    problem = Problem.from_profile(
        profile,
        budget="100%",
        context_tokens=100,
        constraints=(EqualInLayer((0, 1)), LeastTokens(25), Custom(look)),
    )
    reduction = reduce(problem)
    assert reduction is not None
    (function,) = terms_of(reduction.problem).custom
    units = len(reduction.problem.loss)
    for levels in ([0, 1, 2, 3], [3, 2, 1, 0]):
        share = np.zeros((units, 4))
        share[np.arange(units), levels] = 1.0
        function(cp.Constant(share))
        expanded = reduction.expand(np.array(levels))
        assert seen[-1].shape == (6, 4)
        assert seen[-1].argmax(axis=1).tolist() == expanded.tolist()
        assert seen[-1].sum() == 6


def test_a_forbidden_level_is_the_next_lower_one_that_is_allowed() -> None:
    allowed = np.array([[0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1, 1, 0]], dtype=bool)
    assert nearest_allowed(allowed).tolist() == [
        [2, 2, 2, 2, 4],
        [0, 0, 0, 0, 0],
        [1, 1, 2, 3, 3],
    ]


def test_groups_are_numbered_by_their_first_units() -> None:
    assert number(np.array([7, 3, 7, 0, 3])).tolist() == [0, 1, 0, 2, 1]


def test_a_unit_without_a_level_leaves_nothing() -> None:
    nothing = Asked(Terms(allowed=np.array([[True, True], [False, False]])))
    assert reduce(Problem([[1.0, 0.0]] * 2, [[1, 2]] * 2, 9, (nothing,))) is None
    assert reduce(Problem([[INF, INF], [1.0, 0.0]], [[1, 2]] * 2, 9)) is None
    # each has a level of its own, but none that they can share
    apart = Asked(Terms(allowed=np.array([[True, False], [False, True]]), group=np.array([0, 0])))
    assert reduce(Problem([[1.0, 0.0]] * 2, [[1, 2]] * 2, 9, (apart,))) is None
