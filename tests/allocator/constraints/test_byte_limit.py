from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Problem, Profile, Status, Tokens, solve
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.solvers import LinearProgram

LOSS = [[9.0, 5.0, 1.0]] * 3
COST = [[1, 2, 3]] * 3


def limited(*constraints: ByteLimit) -> Problem:
    return Problem(LOSS, COST, 9, constraints)


def test_the_chosen_units_stay_within_it_and_the_others_do_not_count() -> None:
    problem = limited(ByteLimit(3, layers=(0, 2)))
    assert problem.constraints[0].terms(problem).limits[0].cost_bytes.tolist() == [
        [1, 2, 3],
        [0, 0, 0],
        [1, 2, 3],
    ]
    levels = solve(problem, LinearProgram()).levels
    assert levels[1] == 2
    assert levels[0] + levels[2] == 1


def test_of_two_limits_each_holds() -> None:
    solution = solve(
        limited(ByteLimit(3, layers=(0, 1)), ByteLimit(4, layers=[1, 2])), LinearProgram()
    )
    assert solution.levels.tolist() in ([1, 0, 2], [0, 1, 1])
    assert solution.loss == pytest.approx(15.0)


def test_less_than_the_lowest_levels_need_is_infeasible() -> None:
    solution = solve(limited(ByteLimit(1, layers=(0, 1))), LinearProgram())
    assert solution.status is Status.INFEASIBLE
    assert "it uses 2 bytes of 1 for layers 0, 1" in str(solution)


def test_a_share_is_one_of_the_chosen_caches(profile: Profile) -> None:
    problem = Problem.from_profile(
        profile, budget="100%", context_tokens=100, constraints=(ByteLimit("50%", kv_heads=(1,)),)
    )
    (limit,) = problem.constraints[0].terms(problem).limits
    assert limit.most_bytes == problem.cost_bytes[1::2, -1].sum() // 2
    assert (limit.cost_bytes[::2] == 0).all()
    assert limit.name == "KV heads 1"


def test_tokens_are_the_mean_of_the_chosen_caches(profile: Profile) -> None:
    problem = Problem.from_profile(
        profile,
        budget="100%",
        context_tokens=100,
        batch_size=3,
        constraints=(ByteLimit(Tokens(10), layers=(0,)),),
    )
    (limit,) = problem.constraints[0].terms(problem).limits
    # two caches and three sequences of ten tokens
    assert limit.most_bytes == 10 * 2 * 3 * profile.geometry.bytes_per_token


def test_tokens_need_a_profile() -> None:
    with pytest.raises(ValueError, match=r"must not hold ByteLimit\(Tokens\(...\)\) where"):
        limited(ByteLimit(Tokens(4)))


def test_it_may_allow_more_than_there_is() -> None:
    problem = limited(ByteLimit(2**200))
    assert solve(problem, LinearProgram()).levels.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ByteLimit(0), ValueError, "`budget` must be at least 1 byte, but got 0"),
        (lambda: ByteLimit("9 parsecs"), ValueError, "`budget` must be a number with a unit"),
        (lambda: ByteLimit("120%"), ValueError, "`budget` must be at most 100%"),
        (lambda: ByteLimit(1.5), TypeError, "`budget` must be an int of bytes"),
        (lambda: ByteLimit(9, layers=1), TypeError, "`layers` must be a list of indices"),
        (lambda: ByteLimit(9, kv_heads=()), ValueError, "`kv_heads` must name at least one"),
        (lambda: limited(ByteLimit(9, layers=(3,))), ValueError, r"must be in 0..2, but got 3"),
        (lambda: limited(ByteLimit(9, kv_heads=(1,))), ValueError, r"must be in 0..0, but got 1"),
    ],
)
def test_bad_arguments_are_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_selection_is_kept_sorted_and_once() -> None:
    assert ByteLimit(9, layers=[2, 0, 2]) == ByteLimit(9, layers=range(0, 3, 2))
    assert ByteLimit(9, layers=np.array([1])).layers == (1,)
