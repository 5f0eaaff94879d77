"""What all published rules hold beyond the conformance of solvers."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem, Profile, Solver, Status, allocate, solve
from kvbudget.allocator.constraints import EqualInLayer
from kvbudget.allocator.solvers import published

RULES = [getattr(published, name)() for name in published.__all__]
every_rule = pytest.mark.parametrize("rule", RULES, ids=repr)
# KVTuner chooses among whole settings of layer groups, so it leaves what no setting fits into
every_sharing_rule = pytest.mark.parametrize(
    "rule", [rule for rule in RULES if not isinstance(rule, published.KVTuner)], ids=repr
)
WEIGHED = [rule for rule in RULES if "importance" in {field.name for field in fields(rule)}]
every_weighed_rule = pytest.mark.parametrize("rule", WEIGHED, ids=repr)
# the two that search tell their procedure where it is written, in their modules
SEARCHES = (published.EvolKV, published.KVTuner)
every_formula = pytest.mark.parametrize(
    "rule", [rule for rule in RULES if not isinstance(rule, SEARCHES)], ids=repr
)
AS_PUBLISHED = (published.AdaKV, published.DynamicKV, published.PrefixKV, published.PyramidKV)
"""Rules whose formula and signal are both known; all others say what is a reconstruction."""


def test_every_rule_has_a_module_of_its_own() -> None:
    folder = Path(published.__file__).parent
    modules = [type(rule).__module__.rpartition(".")[2] for rule in RULES]
    assert sorted(modules) == sorted(set(modules))
    assert set(modules) <= {path.stem for path in folder.glob("[!_]*.py")}
    assert len(RULES) >= 16


@every_rule
def test_every_module_says_where_the_rule_comes_from_and_what_is_known(rule: Solver) -> None:
    text = sys.modules[type(rule).__module__].__doc__ or ""
    assert "Reference:" in text
    assert "https://" in text


@every_formula
def test_help_on_a_rule_says_where_it_comes_from_and_what_is_a_reconstruction(rule: Solver) -> None:
    text = inspect.getdoc(type(rule)) or ""
    _, heading, reference = text.partition("\nReference:\n")
    assert heading
    assert '"' in reference
    assert "https://" in reference
    assert ("reconstruction" in text.lower()) == (not isinstance(rule, AS_PUBLISHED))


@every_weighed_rule
def test_help_on_a_rule_says_what_stands_in_for_importance(rule: Solver) -> None:
    text = inspect.getdoc(type(rule)) or ""
    told = text.partition("    importance: ")[2].partition("\n\n")[0]
    assert "[layers, kv_heads]" in " ".join(told.split())
    assert "By default" in " ".join(told.split())


@every_sharing_rule
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_on_single_tokens_the_whole_budget_is_spent(
    rule: Solver,
    seed: int,
    share: float,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    budget = 6 + int(share * (6 * 12 - 6))
    problem = on_tokens(mass(seed), budget)
    assert kept_tokens(problem, rule).sum() == budget


@every_sharing_rule
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_windows_are_respected_and_the_budget_is_still_spent(
    rule: Solver,
    seed: int,
    share: float,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed)
    # a layer that sees 5 tokens loses nothing once it holds them
    loss[1] = np.maximum(loss[1] - loss[1, :, 4:5], 0.0)
    budget = 6 + int(share * (4 * 12 + 2 * 5 - 6))
    problem = on_tokens(loss, budget, windows=(None, 5, None))
    kept = kept_tokens(problem, rule)
    assert kept[1].max() <= 5
    assert kept.sum() == budget


@every_rule
def test_costs_near_the_limit_and_losses_below_zero_do_not_disturb(rule: Solver) -> None:
    step = 2**62 // 12
    cost = np.arange(5)[None] * np.array([[step // 2], [step], [step // 3]]) + 1
    loss = np.array([[5.0, 3.0, 2.0, 1.0, 0.0]] * 3) - 1e9
    for budget in (3, step, 3 * step, 6 * step, 2**62):
        solution = solve(Problem(loss, cost, budget), rule)
        assert solution.used_bytes <= budget
    assert solution.status is Status.OPTIMAL


@every_rule
@pytest.mark.parametrize("loss", [1e290, 5e-324])
def test_extreme_losses_give_no_warning(
    rule: Solver, loss: float, recwarn: pytest.WarningsRecorder
) -> None:
    curve = [[loss, loss / 2, 0.0], [0.0, 0.0, 0.0], [loss, 0.0, 0.0]]
    solution = solve(Problem(curve, [[1, 2, 4]] * 3, 9), rule)
    assert solution.used_bytes <= 9
    assert not recwarn.list


@every_weighed_rule
def test_importance_is_a_plain_value_and_stays_out_of_the_name(rule: Solver) -> None:
    make = type(rule)
    one, other = make(importance=np.array([1, 2])), make(importance=[1.0, 2.0])
    assert one == other
    assert hash(one) == hash(other)
    assert one.importance == (1.0, 2.0)
    assert "importance" not in repr(one)
    assert one != rule


@every_weighed_rule
def test_importance_is_checked_when_given_and_against_the_problem(rule: Solver) -> None:
    make = type(rule)
    for wrong in ([-1.0], [float("nan")], [[[1.0]]], [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="`importance` must"):
            make(importance=wrong)
    problem = Problem([[1.0, 0.0]] * 3, [[0, 1]] * 3, 2)
    with pytest.raises(ValueError, match=r"must have the shape \(3,\) or .*, but got \(2,\)"):
        make(importance=[1.0, 2.0]).choose(problem)


@every_weighed_rule
def test_heads_that_must_be_equal_count_with_their_mean(rule: Solver, profile: Profile) -> None:
    def plan(importance: Any) -> Any:
        return allocate(
            profile,
            budget="50%",
            context_tokens=1000,
            constraints=[EqualInLayer()],
            solver=type(rule)(importance=importance),
        ).capacity_tokens

    by_head = plan([[1.0, 9.0], [6.0, 8.0], [4.0, 2.0]])
    assert (by_head == plan([5.0, 7.0, 3.0])).all()
    assert (by_head[:, 0] == by_head[:, 1]).all()


@every_weighed_rule
@pytest.mark.parametrize("value", [0.0, 1.0, 5e-324, 1e300])
def test_any_common_importance_gives_a_plan(
    rule: Solver, value: float, recwarn: pytest.WarningsRecorder
) -> None:
    problem = Problem([[3.0, 1.0, 0.0]] * 4, [[0, 1, 2]] * 4, 5)
    solution = solve(problem, type(rule)(importance=[value] * 4))
    assert solution.used_bytes == 5
    assert not recwarn.list


@every_weighed_rule
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_only_the_ratios_of_importance_count(rule: Solver, data: st.DataObject) -> None:
    if type(rule) is published.D2O:
        # a logarithm: a common summand does not count
        change: Callable[[float], float] = lambda value: value + 4.0  # noqa: E731
    else:
        change = lambda value: value * 4.0  # noqa: E731
    given_out = data.draw(st.lists(st.integers(0, 9), min_size=5, max_size=5))
    loss = np.arange(30, -1, -1.0)
    problem = Problem([loss] * 5, [np.arange(31)] * 5, data.draw(st.integers(0, 150)))
    plain = type(rule)(importance=given_out).choose(problem)
    changed = type(rule)(importance=[change(value) for value in given_out]).choose(problem)
    assert plain.levels.tolist() == changed.levels.tolist()
