from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import (
    CVaR,
    InfeasibleBudget,
    Mean,
    Problem,
    Profile,
    WorstSample,
)
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
    Protected,
)
from kvbudget.allocator.solve_path import NOMINAL_TOKENS, solve_path


def test_a_profile_and_its_problem_have_the_same_path(profile: Profile) -> None:
    request: dict[str, Any] = {
        "context_tokens": 300,
        "batch_size": 2,
        "constraints": (Protected(layers=(0,)),),
    }
    problem = Problem.from_profile(profile, budget="70%", **request)
    assert solve_path(problem) == solve_path(profile, **request)


def test_without_a_context_it_is_the_nominal_one(profile: Profile) -> None:
    path = solve_path(profile)
    assert path.problem.origin is not None
    assert path.problem.origin.context_tokens == NOMINAL_TOKENS == 32_768
    assert path == solve_path(profile, context_tokens=NOMINAL_TOKENS)


@pytest.mark.parametrize(
    "further", [{"context_tokens": 100}, {"batch_size": 2}, {"constraints": (LeastTokens(1),)}]
)
def test_a_problem_takes_no_further_arguments(problem: Problem, further: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be left out for a Problem.*from_profile"):
        solve_path(problem, **further)


@pytest.mark.parametrize("source", [None, "profile.json", np.ones((2, 2))])
def test_only_a_profile_or_a_problem_has_a_path(source: Any) -> None:
    with pytest.raises(TypeError, match="`source` must be a Profile or a Problem, but got"):
        solve_path(source)


@pytest.mark.parametrize(
    ("constraint", "name"),
    [
        (ByteLimit("50%", layers=(0,)), "ByteLimit"),
        (MostCapacities(2), "MostCapacities"),
        (Custom(lambda share: []), "Custom"),
    ],
)
def test_constraints_that_couple_caches_are_refused_with_a_way_out(
    profile: Profile, constraint: Any, name: str
) -> None:
    problem = Problem.from_profile(
        profile, budget="50%", context_tokens=100, constraints=(constraint,)
    )
    for source, constraints in ((profile, (EqualInLayer(), constraint)), (problem, ())):
        with pytest.raises(ValueError, match=f"got {name}. Use allocate or solve at each budget"):
            solve_path(source, constraints=constraints)


@pytest.mark.parametrize("risk", [CVaR(0.5), WorstSample()])
def test_a_risk_other_than_the_mean_is_refused_with_a_way_out(profile: Profile, risk: Any) -> None:
    problem = Problem.from_profile(profile, budget="50%", context_tokens=100, risk=risk)
    with pytest.raises(ValueError, match=r"must be Mean\(\) in a path, but got .*Use allocate"):
        solve_path(problem)
    mean = Problem.from_profile(profile, budget="50%", context_tokens=100, risk=Mean())
    assert len(solve_path(mean)) > 1


def test_constraints_that_leave_a_cache_no_level_have_no_path(
    make_profile: Callable[..., Profile],
) -> None:
    with pytest.raises(InfeasibleBudget, match="a cache is left without a level"):
        solve_path(
            make_profile(), context_tokens=100, constraints=(LeastTokens(60), MostTokens(50))
        )


@pytest.mark.parametrize(
    ("further", "error"),
    [
        ({"context_tokens": 0}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"context_tokens": "long"}, TypeError),
        ({"constraints": LeastTokens(1)}, TypeError),
    ],
)
def test_a_bad_argument_is_named(
    profile: Profile, further: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"`{next(iter(further))}` must"):
        solve_path(profile, **further)
