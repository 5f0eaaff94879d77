import pytest

from kvbudget.allocator import InfeasibleBudget, Problem, Profile, allocate
from kvbudget.allocator.constraints import LeastTokens


def test_every_cache_keeps_so_many_or_all_it_needs(profile: Profile) -> None:
    plan = allocate(profile, budget="60%", context_tokens=100, constraints=(LeastTokens(25),))
    # the window of the middle layer is 16
    assert (plan.capacity_tokens[[0, 2]] >= 25).all()
    assert (plan.capacity_tokens[1] == 16).all()


def test_one_more_token_needs_the_next_level(profile: Profile) -> None:
    plan = allocate(
        profile, budget="70%", context_tokens=100, constraints=(LeastTokens(26, layers=(0,)),)
    )
    assert (plan.capacity_tokens[0] >= 50).all()


def test_only_the_caches_that_are_named(profile: Profile) -> None:
    problem = Problem.from_profile(
        profile,
        budget="60%",
        context_tokens=100,
        constraints=(LeastTokens(50, layers=(0, 1), kv_heads=(1,)),),
    )
    allowed = problem.constraints[0].terms(problem).allowed
    assert allowed is not None
    assert allowed.sum(axis=1).tolist() == [4, 2, 4, 3, 4, 4]


def test_a_floor_above_the_budget_says_what_the_smallest_plan_needs(profile: Profile) -> None:
    with pytest.raises(InfeasibleBudget, match=r"No plan fits .* at 16 to 50 tokens"):
        allocate(profile, budget="20%", context_tokens=100, constraints=(LeastTokens(50),))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`tokens` must be at least 1, but got tokens=0"):
        LeastTokens(0)
    with pytest.raises(TypeError, match="`tokens` must be an integer"):
        LeastTokens("many")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`kv_heads` must be at least 0, but got kv_heads=-1"):
        LeastTokens(4, kv_heads=(-1,))


def test_it_needs_a_profile() -> None:
    with pytest.raises(ValueError, match="must not hold LeastTokens where a problem was made from"):
        Problem([[1.0]], [[1]], 1, (LeastTokens(4),))
