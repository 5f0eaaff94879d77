"""Budgets of layers by evolution, group after group."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Geometry, Plan, Problem, Profile, Status, solve
from kvbudget.allocator.solvers.published.evolkv import EvolKV, GroupBudgets


@pytest.fixture(scope="module")
def deep() -> Problem:
    """Ten layers of two caches; the last layers need most."""
    kept = np.arange(1, 21) / 20
    need = np.linspace(1, 30, 10)[:, None, None] * np.ones((1, 2, 1))
    loss = need * -np.log(kept)
    geometry = Geometry("LlamaForCausalLM", 10, 2, 8, 8, "float32", (None,) * 10)
    profile = Profile(loss, loss[None], kept, geometry, "tests/deep", "key_norm", (), "divergence")
    return Problem.from_profile(profile, budget="25%", context_tokens=100)


def test_it_starts_from_equal_budgets(deep: Problem) -> None:
    levels = solve(deep, EvolKV(trials_per_group=1)).levels
    # a quarter of the context is the fifth level
    assert set(levels.tolist()) == {4}


def test_it_finds_that_the_last_layers_need_more(deep: Problem) -> None:
    equal = solve(deep, EvolKV(trials_per_group=1))
    found = solve(deep, EvolKV())
    kept = found.plan.capacity_tokens.sum(axis=1)
    assert found.loss < 0.95 * equal.loss
    assert found.status is Status.LIMIT_REACHED
    assert kept[:3].sum() < kept[-3:].sum()


def test_a_group_leaves_the_proportions_of_the_others_alone() -> None:
    group = GroupBudgets((1.0, 2.0, 3.0, 4.0), 1, 3)
    assert group.moved([2.0, 0.5]) == (1.0, 4.0, 1.5, 4.0)
    steps = np.arange(101)
    problem = Problem(np.tile(100.0 - steps, (4, 1)), np.tile(steps, (4, 1)), 105)
    assert group.levels(problem, np.array([2.0, 0.5])).tolist() == [10, 40, 15, 40]


def test_only_the_layers_of_a_group_are_searched(deep: Problem) -> None:
    group = GroupBudgets((1.0,) * 10, 8, 10)
    assert [dimension.name for dimension in group.dimensions(deep)] == ["layer 8", "layer 9"]
    assert group.starts(deep) == ((1.0, 1.0),)


def test_groups_are_searched_one_after_another(deep: Problem) -> None:
    counts = []
    for size in (3, 5, 20):
        plans: list[Plan] = []
        solve(deep, EvolKV(lambda plan, to=plans: to.append(plan) or plan.loss, size, 4))  # type: ignore[misc]
        counts.append(len({plan.capacity_tokens.tobytes() for plan in plans}))
    # four trials for each of 4, 2 and 1 groups; the first one of a later group is known
    assert counts[0] > counts[1] > counts[2] == 4


def test_the_plan_with_the_lowest_measured_value_is_chosen(deep: Problem) -> None:
    seen: dict[bytes, float] = {}

    def first_layer(plan: Plan) -> float:
        value = float(1 / plan.kept_fraction[0].min() + 1e-3 * plan.loss)
        return seen.setdefault(plan.capacity_tokens.tobytes(), value)

    solution = solve(deep, EvolKV(first_layer, trials_per_group=15))
    assert seen[solution.plan.capacity_tokens.tobytes()] == min(seen.values())
    assert solution.plan.capacity_tokens[0].min() > 25


def test_caches_of_a_layer_share_its_budget() -> None:
    steps = np.arange(51)
    geometry = Geometry("LlamaForCausalLM", 2, 2, 1, 1, "float16", (None,) * 2)
    kept = np.arange(1, 51) / 50
    loss = np.tile(50.0 - steps[1:], (2, 2, 1))
    profile = Profile(loss, loss[None], kept, geometry, "", "key_norm", (), "divergence")
    problem = Problem.from_profile(profile, budget=4 * 40, context_tokens=50)
    group = GroupBudgets((3.0, 1.0), 0, 2)
    assert (group.levels(problem, np.ones(2)) + 1).tolist() == [15, 15, 5, 5]


def test_a_stored_search_measures_nothing_twice(deep: Problem, tmp_path: Path) -> None:
    calls: list[Plan] = []

    def counted(plan: Plan) -> float:
        calls.append(plan)
        return plan.loss

    search = EvolKV(counted, 5, 6, storage=tmp_path / "search.log")
    first = solve(deep, search)
    made = len(calls)
    assert made >= 6
    assert solve(deep, search) == first
    assert len(calls) == made


def test_an_objective_needs_a_model() -> None:
    with pytest.raises(ValueError, match="`objective` must be given plans of a model"):
        solve(Problem([[4.0, 1.0]], [[1, 3]], 2), EvolKV(lambda plan: plan.loss))


@pytest.mark.parametrize("settings", [{"group_size": 0}, {"trials_per_group": 0}, {"seed": -1}])
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be at least"):
        EvolKV(**settings)


def test_an_objective_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`objective` must be a function .* but got 'ppl'"):
        EvolKV("ppl")  # type: ignore[arg-type]
