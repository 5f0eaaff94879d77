from collections.abc import Callable
from typing import Any

import pytest

from kvbudget.allocator import InfeasibleBudget, Problem, Profile, allocate, solve
from kvbudget.allocator.constraints import LeastTokens, MostCapacities, MostTokens, Protected
from kvbudget.allocator.solvers import Greedy, Hull, MixedInteger, Uniform

PROBLEM = Problem([[9.0, 5.0, 2.0], [8.0, 4.0, 1.0]], [[1, 2, 4], [1, 2, 4]], 5)


def test_a_plan_needs_a_profile() -> None:
    with pytest.raises(ValueError, match=r"must come from Problem.from_profile"):
        _ = solve(PROBLEM, Hull()).plan


def test_a_plan_holds_the_capacity_of_the_chosen_levels(profile: Profile, problem: Problem) -> None:
    solution = solve(problem, Greedy())
    plan = solution.plan
    wanted = profile.geometry.capacity_tokens(profile.kept_fraction, 100)
    for unit, level in enumerate(solution.levels):
        layer, kv_head = divmod(unit, 2)
        assert plan.capacity_tokens[layer, kv_head] == wanted[layer, kv_head, level]
    assert plan.used_bytes == solution.used_bytes
    assert plan.budget_bytes == problem.budget_bytes
    assert plan.certificate.solver == "Greedy"
    assert (plan.loss, plan.bound, plan.gap) == (solution.loss, solution.bound, solution.gap)
    for name in ("geometry", "model", "heuristic", "heuristic_settings", "measure", "made_by"):
        assert getattr(plan, name) == getattr(profile, name)


def test_the_refusal_names_the_smallest_plan_and_the_way_out(
    make_profile: Callable[..., Profile], geometry: Any
) -> None:
    # 6 caches at 105 tokens of 24 bytes need 15,120 bytes
    full = make_profile(geometry=type(geometry)("A", 3, 2, 8, 4, "bfloat16", (None,) * 3))
    with pytest.raises(InfeasibleBudget) as caught:
        allocate(full, budget="10KiB", context_tokens=1050)
    assert str(caught.value) == (
        "No plan fits 10.0 KiB: the smallest needs 14.8 KiB (6 caches at 105 tokens of 1050)."
        " Raise the budget or measure a profile with a smaller level."
    )


def test_the_refusal_gives_a_range_when_windows_differ(profile: Profile) -> None:
    with pytest.raises(InfeasibleBudget, match=r"\(6 caches at 16 to 105 tokens of 1050\)"):
        allocate(profile, budget="1KiB", context_tokens=1050)


def test_the_refusal_is_exact_when_a_byte_is_missing(profile: Profile) -> None:
    floor = Problem.from_profile(profile, budget=1, context_tokens=1050).floor_bytes
    assert allocate(profile, budget=floor, context_tokens=1050).used_bytes == floor
    with pytest.raises(InfeasibleBudget, match=f"fits {floor - 1:,} B.* needs {floor:,} B"):
        allocate(profile, budget=floor - 1, context_tokens=1050)


def test_a_solution_reads_well() -> None:
    text = str(solve(PROBLEM, Hull()))
    assert text.startswith("Hull: FEASIBLE. The plan fits the budget")
    assert "loss    9, at least 7.5 (gap 16.7 %)" in text
    assert "memory  4 B of 5 B" in text
    infeasible = solve(Problem(PROBLEM.loss, PROBLEM.cost_bytes, 1), Hull())
    assert str(infeasible).startswith("No solution: No plan fits 1 B")


def test_solutions_compare_by_everything_but_time() -> None:
    assert solve(PROBLEM, Hull()) == solve(PROBLEM, Hull())
    assert solve(PROBLEM, Hull()) != solve(PROBLEM, Uniform())


def test_the_refusal_says_whether_the_budget_or_the_constraints_are_to_blame(
    profile: Profile,
) -> None:
    request: dict[str, Any] = {"budget": "40%", "context_tokens": 100}
    floor, ceiling = LeastTokens(90), MostTokens(60)
    with pytest.raises(InfeasibleBudget, match=r"under LeastTokens\(tokens=90\) needs .*loosen"):
        allocate(profile, constraints=(floor,), **request)
    with pytest.raises(InfeasibleBudget, match=r"No plan meets .* and .*: a cache is left"):
        allocate(profile, constraints=(floor, ceiling), **request)
    most = (MostCapacities(1), Protected(layers=(0,)))
    solver = MixedInteger()
    with pytest.raises(InfeasibleBudget, match=r"within .* meets MostCap.*\. Raise the"):
        allocate(profile, constraints=most, solver=solver, budget="70%", context_tokens=100)
    with pytest.raises(InfeasibleBudget, match="Did you mean '25%'"):
        allocate(profile, budget=25, context_tokens=100)
