"""One level for each group of equally sensitive layers."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Geometry, Plan, Problem, Profile, Uniform, solve
from kvbudget.allocator.relaxation import used_bytes
from kvbudget.allocator.solvers.published.kvtuner import (
    GroupLevels,
    KVTuner,
    layer_groups,
    worthwhile,
)


def random_problem(seed: int, layers: int = 6, kv_heads: int = 2, share: float = 0.4) -> Problem:
    """Layers that need more the later they come."""
    rng = np.random.default_rng(seed)
    kept = np.array([0.1, 0.2, 0.4, 0.7, 1.0])
    need = rng.exponential(size=(layers, kv_heads, 1)) * np.arange(1, layers + 1)[:, None, None]
    loss = need * (1 / kept - 1)
    geometry = Geometry("LlamaForCausalLM", layers, kv_heads, 4, 4, "float32", (None,) * layers)
    profile = Profile(loss, loss[None], kept, geometry, "tests/six", "key_norm", (), "divergence")
    return Problem.from_profile(profile, budget=f"{share:.0%}", context_tokens=60)


@pytest.mark.parametrize("seed", range(3))
def test_few_choices_are_searched_to_the_best_one(seed: int) -> None:
    problem = random_problem(seed)
    kind = GroupLevels.of(problem, 3)
    best = np.inf
    for choice in itertools.product(*(range(len(menu)) for menu in kind.menus)):
        levels = kind.levels(problem, np.array(choice, dtype=float))
        if used_bytes(problem, levels) <= problem.budget_bytes:
            best = min(best, problem.total_loss(levels))
    assert solve(problem, KVTuner(groups=3, trials=400, population=50)).loss == best


def test_it_starts_from_the_largest_common_level() -> None:
    problem = random_problem(3)
    found = solve(problem, KVTuner(trials=1))
    assert found.levels.tolist() == solve(problem, Uniform()).levels.tolist()
    assert solve(problem, KVTuner(groups=3)).loss < found.loss


def test_caches_of_a_layer_share_a_level() -> None:
    levels = solve(random_problem(2), KVTuner()).levels.reshape(6, 2)
    assert (levels[:, 0] == levels[:, 1]).all()


def test_layers_of_a_group_share_a_level_where_their_menus_are_equal() -> None:
    problem = random_problem(3, layers=9)
    group = layer_groups(problem, 3)
    levels = solve(problem, KVTuner(groups=3)).levels.reshape(9, 2)[:, 0]
    assert len(set(group.tolist())) == 3
    assert all(len(set(levels[group == number].tolist())) == 1 for number in range(3))


def test_equally_sensitive_layers_form_a_group() -> None:
    base = np.array([8.0, 4.0, 0.0])
    scale = np.array([1, 9, 1, 9.1, 1])[:, None]
    problem = Problem(base * scale, np.tile([1, 2, 3], (5, 1)), 10)
    assert layer_groups(problem, 2).tolist() == [0, 1, 0, 1, 0]
    assert layer_groups(problem, 8).tolist() == [0, 1, 0, 2, 0]


@given(data=st.data())
@settings(deadline=None)
def test_what_is_left_of_a_menu_is_its_pareto_set(data: st.DataObject) -> None:
    rows = st.lists(st.integers(0, 3), min_size=6, max_size=6)
    cost, drop = (np.cumsum([data.draw(rows)], axis=1) for _ in range(2))
    problem = Problem(drop[:, -1:] - drop, cost, int(cost[0, -1]))
    pairs = set(zip(cost[0].tolist(), problem.loss[0].tolist(), strict=True))
    beaten = {(c, x) for c, x in pairs for d, y in pairs if d <= c and y <= x and (d, y) != (c, x)}
    left = worthwhile(problem)[0]
    kept = {(int(cost[0, level]), float(problem.loss[0, level])) for level in left}
    assert kept == pairs - beaten
    assert (problem.loss[0, left] <= problem.loss[0]).all()
    assert (cost[0, left] <= cost[0]).all()


def test_plans_over_the_budget_are_not_measured() -> None:
    problem = random_problem(4, share=0.3)
    plans: list[Plan] = []

    def measured(plan: Plan) -> float:
        assert plan.used_bytes <= problem.budget_bytes
        plans.append(plan)
        return plan.loss

    solution = solve(problem, KVTuner(measured))
    assert 1 < len(plans) < 100
    assert solution.loss == min(plan.loss for plan in plans)


def test_the_measured_value_decides() -> None:
    problem = random_problem(5)
    solution = solve(problem, KVTuner(lambda plan: float(plan.capacity_tokens[-1, 0])))
    assert solution.levels[-1] == 0


def test_a_stored_search_measures_nothing_twice(tmp_path: Path) -> None:
    problem, calls = random_problem(6), []

    def counted(plan: Plan) -> float:
        calls.append(plan)
        return plan.loss

    first = solve(problem, KVTuner(counted, trials=30, storage=tmp_path / "search.log"))
    made = len(calls)
    assert solve(problem, KVTuner(counted, trials=30, storage=tmp_path / "search.log")) == first
    assert len(calls) == made > 1


def test_an_objective_needs_a_model() -> None:
    with pytest.raises(ValueError, match="`objective` must be given plans of a model"):
        solve(Problem([[4.0, 1.0]], [[1, 3]], 2), KVTuner(lambda plan: plan.loss))


@pytest.mark.parametrize(
    "settings", [{"groups": 0}, {"trials": 0}, {"population": 1}, {"seed": -1}]
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be at least"):
        KVTuner(**settings)


def test_an_objective_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`objective` must be a function .* but got 'ppl'"):
        KVTuner("ppl")  # type: ignore[arg-type]
