from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import (
    Choice,
    CVaR,
    Geometry,
    InfeasibleBudget,
    Plan,
    Problem,
    Profile,
    Solver,
    allocate,
    solve,
    solvers,
)
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    Protected,
    WholePages,
)
from kvbudget.allocator.plan_curves import Curves


def test_its_numbers_follow_from_its_capacities(plan: Plan) -> None:
    per_token = plan.geometry.bytes_per_token
    assert plan.used_bytes == int(plan.capacity_tokens.sum()) * per_token * 2
    assert plan.used_bytes <= plan.budget_bytes
    assert np.array_equal(plan.kept_fraction, plan.capacity_tokens / 100)
    assert (plan.loss, plan.bound, plan.gap) == (
        plan.certificate.loss,
        plan.certificate.bound,
        plan.certificate.gap,
    )


def test_a_sliding_layer_keeps_at_most_its_window(plan: Plan) -> None:
    assert (plan.capacity_tokens[1] <= 16).all()


def test_plans_compare_by_content(plan: Plan) -> None:
    assert replace(plan) == plan
    assert replace(plan, model="another") != plan
    assert replace(plan, capacity_tokens=np.ones((3, 2), dtype=int)) != plan
    assert replace(plan, curves=None) != plan
    assert plan != "plan"


def test_capacities_are_a_read_only_copy(plan: Plan) -> None:
    with pytest.raises(ValueError, match="read-only"):
        plan.capacity_tokens[0, 0] = 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"capacity_tokens": np.ones((2, 2))}, ValueError, "[layers, kv_heads] = (3, 2)"),
        ({"capacity_tokens": np.ones(6)}, ValueError, "the shape [layers, kv_heads]"),
        (
            {"capacity_tokens": np.zeros((3, 2))},
            ValueError,
            "must be in 1..100, but got 0 at layer",
        ),
        ({"capacity_tokens": np.full((3, 2), 101)}, ValueError, "must be in 1..100, but got 101"),
        ({"capacity_tokens": np.full((3, 2), 1.5)}, ValueError, "must be whole numbers"),
        ({"capacity_tokens": np.full((3, 2), 100)}, ValueError, "must fit `budget_bytes`"),
        ({"budget_bytes": 3}, ValueError, "must fit `budget_bytes`"),
        ({"budget_bytes": 0}, ValueError, "`budget_bytes` must be at least 1"),
        ({"batch_size": True}, TypeError, "`batch_size` must be an integer"),
        ({"context_tokens": 0}, ValueError, "`context_tokens` must be at least 1"),
        ({"certificate": None}, TypeError, "`certificate` must be a Certificate"),
        ({"geometry": None}, TypeError, "`geometry` must be a Geometry"),
        ({"measure": 1}, TypeError, "`measure` must be a string"),
        ({"heuristic_settings": 1}, TypeError, "`heuristic_settings` must be"),
        ({"curves": {}}, TypeError, "`curves` must be Curves or None"),
        (
            {"curves": Curves((0.5, 1), np.zeros((2, 2, 2)))},
            ValueError,
            "`curves` must be of (3, 2) caches [layers, kv_heads], but got (2, 2)",
        ),
    ],
)
def test_a_bad_field_is_refused(
    plan: Plan, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        replace(plan, **changes)
    assert message in str(caught.value)


def test_a_plan_may_use_exactly_its_budget(plan: Plan) -> None:
    assert replace(plan, budget_bytes=plan.used_bytes).budget_bytes == plan.used_bytes
    with pytest.raises(ValueError, match="must fit"):
        replace(plan, budget_bytes=plan.used_bytes - 1)


def test_it_reads_well(plan: Plan) -> None:
    text = str(plan)
    assert "Plan for tests/tiny: LlamaForCausalLM (3 layers x 2 KV heads" in text
    assert "budget (full cache: 20.2 KiB, batch size 2)" in text
    assert "of 100 tokens," in text
    assert "found by Hull (output_error)" in text
    assert "observation_window(window=32, kernel=7)" in text
    assert len(text.splitlines()) < 10
    assert "risk" not in text
    assert "limits" not in text


def test_it_says_what_else_it_was_made_for(plan: Plan) -> None:
    certificate = replace(
        plan.certificate, risk="CVaR(level=0.9)", constraints=("EqualInLayer()", "Custom")
    )
    lines = str(replace(plan, certificate=certificate)).splitlines()
    assert "  risk      CVaR(level=0.9)" in lines
    assert "  limits    EqualInLayer(), Custom" in lines


@dataclass(frozen=True, slots=True)
class Lowest(Solver):
    """Takes the lowest levels, which honour almost anything."""

    honours: ClassVar[Any] = frozenset({ByteLimit, Custom, CVaR})

    def choose(self, problem: Problem) -> Choice:
        return Choice(np.zeros(len(problem.loss), dtype=np.int64))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 30),
    share=st.integers(20, 100),
    context_tokens=st.integers(20, 400),
    longer=st.integers(1, 400),
    constraints=st.sampled_from([(), (EqualInLayer(),), (WholePages(8), LeastTokens(12))]),
)
def test_for_another_context_it_is_what_the_profile_would_give(
    make_profile: Callable[..., Profile],
    seed: int,
    share: int,
    context_tokens: int,
    longer: int,
    constraints: Any,
) -> None:
    profile = make_profile(seed)
    request: dict[str, Any] = {"batch_size": 2, "constraints": constraints}
    full = profile.geometry.full_bytes(context_tokens, 2)
    budget = max(full * share // 100, 4_000)
    made = outcome(profile, budget=budget, context_tokens=context_tokens, **request)
    wanted = outcome(profile, budget=budget, context_tokens=longer, **request)
    if isinstance(made, str):
        return
    assert made.at(context_tokens) == made
    if isinstance(wanted, str):
        with pytest.raises(InfeasibleBudget) as caught:
            made.at(longer)
        assert str(caught.value) == wanted
    else:
        assert made.at(longer) == wanted


def outcome(profile: Profile, **request: Any) -> Plan | str:
    """A plan, or why there is none."""
    try:
        return allocate(profile, **request)
    except InfeasibleBudget as error:
        return str(error)


def test_a_context_that_fits_whole_is_kept_whole(plan: Plan) -> None:
    short = plan.at(20)
    assert short.capacity_tokens.tolist() == [[20, 20], [16, 16], [20, 20]]
    assert (short.context_tokens, short.loss, short.gap) == (20, 0.0, 0.0)
    assert (short.batch_size, short.budget_bytes) == (plan.batch_size, plan.budget_bytes)


def test_a_longer_context_keeps_within_the_same_bytes(plan: Plan) -> None:
    longer = plan.at(250)
    assert longer.used_bytes <= longer.budget_bytes == plan.budget_bytes
    assert longer.capacity_tokens.max() > plan.capacity_tokens.min()
    assert longer.loss > plan.loss
    assert longer.at(100) == plan
    with pytest.raises(InfeasibleBudget, match=r"No plan fits .* needs"):
        plan.at(5_000)


def test_a_plan_of_another_solver_is_divided_anew_by_the_hull(profile: Profile) -> None:
    by_greedy = allocate(profile, budget="40%", context_tokens=100, solver=solvers.Uniform())
    by_hull = allocate(profile, budget="40%", context_tokens=100)
    assert by_greedy.at(100) == by_hull != by_greedy
    assert by_greedy.at(100).certificate.solver == "Hull"


def test_shares_in_constraints_are_of_the_new_context(profile: Profile) -> None:
    constraints = (ByteLimit("10%", layers=(0,)),)
    plan = allocate(profile, budget="50%", context_tokens=100, constraints=constraints)
    longer = plan.at(300)
    assert longer.certificate.constraints == ("ByteLimit(budget='10%', layers=(0,))",)
    assert longer.curves == plan.curves
    assert longer.capacity_tokens[0].tolist() == [30, 30]


def test_protected_caches_stay_protected(make_profile: Callable[..., Profile]) -> None:
    full = make_profile(geometry=Geometry("A", 3, 2, 8, 4, "bfloat16", (None,) * 3))
    constraints = (Protected(layers=(1,)),)
    plan = allocate(full, budget="60%", context_tokens=100, constraints=constraints)
    assert plan.at(90).capacity_tokens[1].tolist() == [90, 90]
    assert plan.at(130).capacity_tokens[1].tolist() == [130, 130]


@pytest.mark.parametrize("context_tokens", [0, -5, 2**41])
def test_a_context_out_of_range_is_refused(plan: Plan, context_tokens: int) -> None:
    with pytest.raises(ValueError, match="`context_tokens` must be at"):
        plan.at(context_tokens)


def test_without_curves_it_stays_as_it_is(plan: Plan) -> None:
    with pytest.raises(ValueError, match=r"in a plan without curves: .*Allocate from the profile"):
        replace(plan, curves=None).at(50)


def test_a_constraint_that_no_file_can_hold_leaves_no_curves(profile: Profile) -> None:
    plan = allocate(
        profile,
        budget="40%",
        context_tokens=100,
        solver=Lowest(),
        constraints=(Custom(lambda share: []),),
    )
    assert plan.curves is None
    assert plan.certificate.constraints == ("Custom",)
    with pytest.raises(ValueError, match="a constraint that files cannot hold, such as Custom"):
        plan.at(50)


def test_a_plan_for_a_risk_says_why_it_stays_as_it_is(profile: Profile) -> None:
    problem = Problem.from_profile(profile, budget="40%", context_tokens=100, risk=CVaR(0.8))
    plan = solve(problem, Lowest()).plan
    assert plan.certificate.risk == "CVaR(level=0.8)"
    with pytest.raises(ValueError, match=r"for the risk CVaR\(level=0.8\), which needs the losses"):
        plan.at(50)
