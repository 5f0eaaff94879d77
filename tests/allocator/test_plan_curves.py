from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import CVaR, Problem, Profile
from kvbudget.allocator.constraints import Custom, EqualInLayer, LeastTokens, WholePages
from kvbudget.allocator.plan_curves import Curves

LOSS = [[[2.0, 1.0, 0.0], [3.0, 3.5, 0.0]]]


def test_it_remembers_what_the_problem_was_made_from(profile: Profile) -> None:
    constraints = (LeastTokens(12), EqualInLayer(), WholePages(4))
    problem = Problem.from_profile(
        profile, budget="50%", context_tokens=100, batch_size=3, constraints=constraints
    )
    curves = Curves.of(problem)
    assert curves is not None
    assert problem.origin is not None
    assert curves.constraints == constraints
    again = curves.problem(problem.origin, context_tokens=100, budget=problem.budget_bytes)
    assert again == problem
    longer = curves.problem(problem.origin, context_tokens=900, budget="50%")
    assert longer == Problem.from_profile(
        profile, budget="50%", context_tokens=900, batch_size=3, constraints=constraints
    )


def test_a_profile_that_rises_is_remembered_as_it_was(make_profile: Callable[..., Profile]) -> None:
    bumpy = make_profile().loss[..., [0, 2, 1, 3]]
    profile = make_profile(loss=bumpy, sample_loss=bumpy[None])
    problem = Problem.from_profile(profile, budget="50%", context_tokens=100)
    curves = Curves.of(problem)
    assert curves is not None
    assert np.array_equal(curves.loss, bumpy)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": None},
        {"loss": np.full((6, 4), np.inf)},
        {"loss": np.full((6, 4), -1.0)},
        {"cost_bytes": np.ones((6, 4), dtype=int)},
        {"constraints": (Custom(lambda share: []),)},
    ],
)
def test_a_problem_that_was_changed_is_not_remembered(
    problem: Problem, change: dict[str, Any]
) -> None:
    assert Curves.of(problem) is not None
    assert Curves.of(replace(problem, **change)) is None


def test_another_menu_of_capacities_is_not_remembered(problem: Problem) -> None:
    assert problem.origin is not None
    menu = np.maximum(problem.origin.capacity_tokens, 12)
    changed = replace(problem, origin=replace(problem.origin, capacity_tokens=menu))
    assert Curves.of(changed) is None


def test_a_risk_is_not_remembered(profile: Profile) -> None:
    problem = Problem.from_profile(profile, budget="50%", context_tokens=100, risk=CVaR(0.5))
    assert Curves.of(problem) is None


def test_json_gives_the_same_curves_back() -> None:
    curves = Curves((0.1, 0.5, 1), LOSS, (LeastTokens(3),))  # type: ignore[arg-type]
    assert Curves.from_json(curves.to_json()) == curves
    assert curves != replace(curves, constraints=())
    assert curves != replace(curves, loss=curves.loss * 2)
    assert curves != "curves"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": [[[-1.0, 0, 0]]]}, ValueError, "`loss` must be at least 0"),
        ({"loss": [[[np.inf, 0, 0]]]}, ValueError, "`loss` must be finite"),
        ({"loss": [[[1.0, 0]]]}, ValueError, "one entry per level, but got 2 for 3 levels"),
        ({"kept_fraction": (0.5, 0.4, 1)}, ValueError, "`kept_fraction` must rise"),
        ({"constraints": LeastTokens(1)}, TypeError, "`constraints` must be a list or tuple of"),
        ({"constraints": (Custom(print),)}, ValueError, "only such as a file can hold"),
    ],
)
def test_a_bad_field_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    fields = {"kept_fraction": (0.1, 0.5, 1), "loss": LOSS, **changes}
    with pytest.raises(error, match=message):
        Curves(**fields)


def test_arrays_are_read_only_copies() -> None:
    curves = Curves(np.array([0.1, 0.5, 1]), np.array(LOSS))
    with pytest.raises(ValueError, match="read-only"):
        curves.loss[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        curves.kept_fraction[0] = 1
