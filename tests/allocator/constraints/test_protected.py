import pytest

from kvbudget.allocator import InfeasibleBudget, Problem, Profile, allocate, solve
from kvbudget.allocator.constraints import Protected
from kvbudget.allocator.solvers import Hull


def test_a_protected_cache_keeps_everything(profile: Profile) -> None:
    limits = (Protected(layers=(1,)), Protected(layers=(2,), kv_heads=(0,)))
    plan = allocate(profile, budget="60%", context_tokens=100, constraints=limits)
    assert plan.capacity_tokens[1].tolist() == [16, 16]
    assert plan.capacity_tokens[2, 0] == 100
    assert (plan.capacity_tokens < 100).sum() > 2


def test_it_holds_where_protection_gains_nothing() -> None:
    problem = Problem([[0.0, 0.0], [9.0, 0.0]], [[1, 5], [1, 5]], 6, (Protected(layers=(0,)),))
    assert solve(problem, Hull()).levels.tolist() == [1, 0]


def test_of_levels_that_need_the_same_memory_any_will_do() -> None:
    problem = Problem([[2.0, 1.0, 1.0]], [[1, 5, 5]], 6, (Protected(layers=(0,)),))
    assert solve(problem, Hull()).used_bytes == 5


def test_too_little_for_what_is_protected(profile: Profile) -> None:
    with pytest.raises(InfeasibleBudget, match="No plan fits"):
        allocate(profile, budget="30%", context_tokens=100, constraints=(Protected(layers=(0,)),))


def test_it_must_say_what_is_meant() -> None:
    with pytest.raises(ValueError, match="`layers` or `kv_heads` must say which caches"):
        Protected()
    with pytest.raises(ValueError, match="`layers` must name at least one"):
        Protected(layers=())
    with pytest.raises(TypeError, match="`kv_heads` must be an integer"):
        Protected(kv_heads=(0.5,))  # type: ignore[arg-type]
