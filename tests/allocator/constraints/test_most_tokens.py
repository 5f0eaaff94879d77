import pytest

from kvbudget.allocator import InfeasibleBudget, Problem, Profile, allocate
from kvbudget.allocator.constraints import LeastTokens, MostTokens


def test_no_cache_keeps_more(profile: Profile) -> None:
    plan = allocate(profile, budget="100%", context_tokens=100, constraints=(MostTokens(50),))
    assert plan.capacity_tokens.tolist() == [[50, 50], [16, 16], [50, 50]]


def test_one_token_less_forbids_the_level(profile: Profile) -> None:
    plan = allocate(
        profile, budget="100%", context_tokens=100, constraints=(MostTokens(49, kv_heads=(1,)),)
    )
    assert plan.capacity_tokens.tolist() == [[100, 25], [16, 16], [100, 25]]


def test_no_level_is_low_enough(profile: Profile) -> None:
    with pytest.raises(InfeasibleBudget, match="a cache is left without a level"):
        allocate(profile, budget="100%", context_tokens=100, constraints=(MostTokens(5),))


def test_between_a_floor_and_a_ceiling(profile: Profile) -> None:
    limits = (LeastTokens(20), MostTokens(60))
    plan = allocate(profile, budget="100%", context_tokens=100, constraints=limits)
    assert plan.capacity_tokens.tolist() == [[50, 50], [16, 16], [50, 50]]
    with pytest.raises(InfeasibleBudget, match="a cache is left without a level"):
        allocate(
            profile,
            budget="100%",
            context_tokens=100,
            constraints=(LeastTokens(51), MostTokens(99)),
        )


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`tokens` must be at least 1, but got tokens=-3"):
        MostTokens(-3)
    with pytest.raises(TypeError, match="`layers` must be a list of indices or None"):
        MostTokens(3, layers="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not hold MostTokens where"):
        Problem([[1.0]], [[1]], 1, (MostTokens(4),))
