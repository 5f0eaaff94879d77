from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Geometry, Problem, Profile, Tokens
from kvbudget.allocator.constraints import LeastTokens, WholePages

LOSS = [[3.0, 1.0], [4.0, 0.0]]
COST = [[1, 5], [2, 2]]


def test_it_keeps_read_only_copies() -> None:
    loss = np.array(LOSS)
    problem = Problem(loss, COST, 6)
    loss[0, 0] = 100.0
    assert problem.loss[0, 0] == 3.0
    assert problem.cost_bytes.dtype == np.int64
    for array in (problem.loss, problem.cost_bytes):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 7


def test_floor_and_ceiling_are_the_smallest_and_largest_plans() -> None:
    problem = Problem(LOSS, COST, 6)
    assert (problem.floor_bytes, problem.ceiling_bytes) == (3, 7)


def test_problems_compare_by_content() -> None:
    assert Problem(LOSS, COST, 6) == Problem(np.array(LOSS), np.array(COST), 6)
    assert Problem(LOSS, COST, 6) != Problem(LOSS, COST, 7)
    assert Problem(LOSS, COST, 6) != Problem([[3.0, 1.0], [4.0, 0.5]], COST, 6)
    assert Problem(LOSS, COST, 6) != "a problem"


def test_whole_floats_are_bytes_too() -> None:
    assert Problem(LOSS, np.array(COST, dtype=float), 6) == Problem(LOSS, COST, 6)


@pytest.mark.parametrize(
    ("loss", "cost", "message"),
    [
        ([[1.0, np.nan]], [[1, 2]], "`loss` must not be NaN, but got nan at unit 0, level 1."),
        ([[1.0, -np.inf]], [[1, 2]], "`loss` must be within 1e290, or infinite, but got -inf"),
        ([[1.0, np.inf]], [[1, 2]], "`loss` must never rise"),
        ([[1.0, 2.0]], [[1, 2]], "`loss` must never rise"),
        ([[1e300, 0.0]], [[1, 2]], "`loss` must be within 1e290"),
        ([[2.0, 1.0]], [[2, 1]], "`cost_bytes` must never fall"),
        ([[2.0, 1.0]], [[-1, 1]], "`cost_bytes` must be at least 0"),
        ([[2.0, 1.0]], [[1, 1.5]], "`cost_bytes` must be whole numbers below 2**53, but got 1.5"),
        ([[2.0, 1.0]], [[1, np.nan]], "`cost_bytes` must be whole numbers"),
        ([[2.0, 1.0]], [[2**63, 2**64 - 1]], "`cost_bytes` must be below 2**63"),
        ([[2.0, 1.0]] * 2, [[1, 2**62]] * 2, "must keep all caches together within 4096.0 PiB"),
        ([[2.0, 1.0]], [[1, 2, 3]], "but got (1, 2) and (1, 3)."),
        ([2.0, 1.0], [[1, 2]], "`loss` must have the shape [units, levels]"),
        ([[]], [[]], "with no empty axis"),
        ([[2.0, 1.0], [1.0]], [[1, 2], [1, 2]], "`loss` must be a rectangular array"),
    ],
)
def test_unusable_arrays_are_refused(loss: Any, cost: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Problem(loss, cost, 10)
    assert message in str(caught.value)


@pytest.mark.parametrize("array", [[["a", "b"]], [[True, False]], [[None, 1]], [[1j, 0]]])
def test_arrays_of_something_else_are_refused(array: Any) -> None:
    with pytest.raises(TypeError, match="`loss` must hold real numbers"):
        Problem(array, [[1, 2]], 10)
    with pytest.raises(TypeError, match="`cost_bytes` must hold integers"):
        Problem([[1.0, 0.0]], array, 10)


@pytest.mark.parametrize(
    ("budget", "error"),
    [(-1, ValueError), (2**63, ValueError), (1.0, TypeError), (True, TypeError), ("9", TypeError)],
)
def test_the_budget_is_a_count_of_bytes(budget: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`budget_bytes` must be"):
        Problem(LOSS, COST, budget)


def test_constraints_are_a_tuple_of_constraints(profile: Profile) -> None:
    with pytest.raises(TypeError, match=r"`constraints` must hold constraints such as LeastTok"):
        Problem(LOSS, COST, 6, constraints=("one per device",))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`constraints` must be a list or tuple of constraints"):
        Problem.from_profile(
            profile,
            budget="50%",
            context_tokens=10,
            constraints=LeastTokens(1),  # type: ignore[arg-type]
        )


def test_an_infinite_loss_is_a_level_that_is_never_chosen() -> None:
    problem = Problem([[np.inf, 3.0, 1.0], [np.inf, np.inf, 0.0]], [[1, 2, 3], [1, 2, 3]], 6)
    assert problem.loss[1, 0] == np.inf


def test_a_profile_becomes_one_unit_per_cache(profile: Profile, geometry: Geometry) -> None:
    problem = Problem.from_profile(profile, budget="50%", context_tokens=100, batch_size=3)
    assert problem.loss.shape == problem.cost_bytes.shape == (6, 4)
    assert problem.loss[2 * 1 + 1].tolist() == profile.loss[1, 1].tolist()
    per_token = geometry.bytes_per_token * 3
    assert problem.cost_bytes[1].tolist() == [
        10 * per_token,
        25 * per_token,
        50 * per_token,
        2400 * 3,
    ]
    # the middle layer slides over 16 tokens
    assert problem.cost_bytes[2].tolist() == [n * per_token for n in (10, 16, 16, 16)]


def test_the_whole_budget_is_the_full_cache(profile: Profile, geometry: Geometry) -> None:
    problem = Problem.from_profile(profile, budget="100%", context_tokens=100, batch_size=3)
    assert problem.budget_bytes == problem.ceiling_bytes == geometry.full_bytes(100, 3)


def test_a_budget_of_tokens_is_a_mean(profile: Profile, geometry: Geometry) -> None:
    problem = Problem.from_profile(profile, budget=Tokens(7), context_tokens=100)
    assert problem.budget_bytes == 7 * 6 * geometry.bytes_per_token


def test_a_measured_rise_is_repaired(make_profile: Callable[..., Profile]) -> None:
    loss = np.broadcast_to([3.0, 1.0, 2.0, 0.0], (3, 2, 4))
    problem = Problem.from_profile(make_profile(loss=loss), budget="50%", context_tokens=10)
    assert problem.loss[0].tolist() == [3.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"budget": "banana"}, ValueError, "`budget` must be"),
        ({"context_tokens": 0}, ValueError, "`context_tokens` must be at least 1"),
        ({"context_tokens": 1.5}, TypeError, "`context_tokens` must be an integer"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ({"batch_size": 2**62}, ValueError, "must keep all caches together within"),
    ],
)
def test_a_bad_request_is_refused(
    profile: Profile, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Problem.from_profile(profile, **{"budget": "50%", "context_tokens": 100, **changes})
    assert message in str(caught.value)


def test_only_a_profile_becomes_a_problem() -> None:
    with pytest.raises(TypeError, match="`profile` must be a Profile"):
        Problem.from_profile("profile.st", budget=1, context_tokens=1)  # type: ignore[arg-type]


def test_it_reads_well() -> None:
    text = str(Problem(LOSS, COST, 2048))
    assert "2 units with 2 levels each, budget 2.0 KiB" in text
    assert "3 B, loss 7" in text


def test_a_level_that_is_not_allowed_lends_its_loss_to_no_other(
    make_profile: Callable[..., Profile],
) -> None:
    loss = np.broadcast_to([5.0, 1.0, 3.0, 0.0], (3, 2, 4))  # 10, 25, 50 and 100 of 100 tokens
    request: dict[str, Any] = {"budget": "100%", "context_tokens": 100}
    free = Problem.from_profile(make_profile(loss=loss), **request)
    assert free.loss[0].tolist() == [5.0, 1.0, 1.0, 0.0]
    bound = Problem.from_profile(
        make_profile(loss=loss), constraints=(LeastTokens(30, layers=[0]),), **request
    )
    assert bound.loss[0].tolist() == [np.inf, np.inf, 3.0, 0.0]
    assert bound.loss[5].tolist() == free.loss[5].tolist()


def test_an_origin_must_belong_to_the_menus(problem: Problem) -> None:
    with pytest.raises(ValueError, match="`origin` must have the problem's shape"):
        replace(problem, loss=problem.loss[:, :3], cost_bytes=problem.cost_bytes[:, :3])
    with pytest.raises(TypeError, match="`origin` must be an Origin"):
        replace(problem, origin=5)  # type: ignore[arg-type]


def test_pages_that_would_need_too_much_are_refused(profile: Profile) -> None:
    for pages in ((WholePages(2**40),), (WholePages(2**30), WholePages(3**20))):
        with pytest.raises(ValueError, match="`page_tokens` must"):
            Problem.from_profile(
                profile, budget="50%", context_tokens=100, constraints=pages, batch_size=2**16
            )
