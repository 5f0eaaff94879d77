"""Every solver with every constraint and risk that it honours, against trying every plan."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import (
    CVaR,
    Geometry,
    Mean,
    Problem,
    Profile,
    Risk,
    Solution,
    Solver,
    Status,
    WorstSample,
    running_minimum,
    solve,
    solvers,
)
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
    Protected,
    WholePages,
)

SOLVERS = [getattr(solvers, name) for name in solvers.__all__]
COUPLING: list[tuple[type, ...]] = [
    (ByteLimit,),
    (MostCapacities,),
    (Custom,),
    (WorstSample,),
    (CVaR,),
    (ByteLimit, CVaR),
    (ByteLimit, MostCapacities),
    (ByteLimit, MostCapacities, Custom, WorstSample),
]
SLOW = {"LinearProgram", "MixedInteger", "OptunaSearch"}

Plans = dict[tuple[int, ...], float]
Rule = Callable[[tuple[int, ...]], bool]


def able(*wanted: type) -> list[type[Solver]]:
    return [make for make in SOLVERS if set(wanted) <= make.honours]


def examples(make: type[Solver]) -> int:
    return 15 if make.__name__ in SLOW else 40


def name_of(value: Any) -> str:
    return "+".join(each.__name__ for each in value) if isinstance(value, tuple) else value.__name__


def plans_of(problem: Problem, rule: Rule, loss_of: Callable[[tuple[int, ...]], float]) -> Plans:
    """What every plan loses that fits the budget and obeys a rule, by brute force."""
    units, num_levels = problem.loss.shape
    at = np.arange(units)
    return {
        levels: loss_of(levels)
        for levels in itertools.product(range(num_levels), repeat=units)
        if sum(problem.cost_bytes[at, levels].tolist()) <= problem.budget_bytes and rule(levels)
    }


def check(problem: Problem, solution: Solution, plans: Plans) -> None:
    """Assert all that holds for an honest answer, given every plan there is."""
    if not plans:
        assert solution.status is Status.INFEASIBLE
        assert str(solution).startswith("No solution: No plan")
        return
    assert solution.status.has_plan
    optimum = min(plans.values())
    slack = 1e-9 * max(abs(optimum), abs(float(problem.loss[np.isfinite(problem.loss)].max())))
    chosen = tuple(solution.levels.tolist())
    assert chosen in plans
    assert solution.loss == pytest.approx(plans[chosen], rel=1e-12, abs=slack)
    assert solution.bound <= optimum + slack
    assert solution.bound <= solution.loss
    if solution.status is Status.OPTIMAL or solution.solver in ("Exact", "MixedInteger"):
        assert solution.loss <= optimum + slack


def rows(draw: st.DrawFn, numbers: st.SearchStrategy[Any], *shape: int) -> Any:
    size = math.prod(shape)
    return np.array(draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)


def worst_mean(totals: Any, count: float) -> float:
    """Mean of the worst totals by the definition of Rockafellar and Uryasev: a least value."""
    return min(t + float(np.maximum(totals - t, 0).sum()) / count for t in totals.tolist())


@st.composite
def coupled(draw: st.DrawFn, wanted: tuple[type, ...]) -> tuple[Problem, Plans]:
    """A tiny problem with some constraints and a risk, and all its plans."""
    units, num_levels = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    samples = rows(draw, st.integers(0, 9), draw(st.integers(1, 4)), units, num_levels)
    samples = samples * draw(st.sampled_from([1.0, 0.1, 1e-9, 1e6]))
    cost = np.cumsum(rows(draw, st.integers(0, 9), units, num_levels), axis=1)
    cost = cost * draw(st.sampled_from([1, 2**12, 999_983, 2**55]))
    loss = running_minimum(samples.mean(axis=0))
    budget = draw(share_of(cost))
    rules: list[Rule] = []
    constraints: list[Constraint] = []
    for kind in wanted:
        for constraint, rule in MAKERS.get(kind, no_constraint)(draw, cost):
            constraints.append(constraint)
            rules.append(rule)
    risk: Risk = Mean()
    if WorstSample in wanted:
        risk = WorstSample()
    if CVaR in wanted:
        risk = CVaR(draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 0.99])))
    problem = Problem(loss, cost, budget, tuple(constraints), sample_loss=samples, risk=risk)

    def loss_of(levels: tuple[int, ...]) -> float:
        at = np.arange(units), list(levels)
        if risk == Mean():
            return float(loss[at].sum())
        totals = samples[:, at[0], at[1]].sum(axis=1)
        share = 1.0 if isinstance(risk, WorstSample) else (1 - risk.level) * len(totals)
        return worst_mean(totals, max(share, 1.0))

    plans = plans_of(problem, lambda levels: all(rule(levels) for rule in rules), loss_of)
    return problem, plans


def share_of(cost: Any) -> st.SearchStrategy[int]:
    low, high = sum(cost[:, 0].tolist()), sum(cost[:, -1].tolist())
    return st.one_of(
        st.integers(0, 12).map(lambda part: low + (high - low) * part // 12),
        st.sampled_from([max(low - 1, 0), low, high, high + 1]),
    )


def no_constraint(draw: st.DrawFn, cost: Any) -> Iterator[tuple[Constraint, Rule]]:
    return iter(())


def byte_limits(draw: st.DrawFn, cost: Any) -> Iterator[tuple[Constraint, Rule]]:
    for _ in range(draw(st.integers(1, 2))):
        layers = sorted(draw(st.sets(st.integers(0, len(cost) - 1), min_size=1)))
        most = max(draw(share_of(cost[layers])), 1)

        def holds(levels: tuple[int, ...], layers: list[int] = layers, most: int = most) -> bool:
            return sum(int(cost[unit, levels[unit]]) for unit in layers) <= most

        yield ByteLimit(most, layers=tuple(layers)), holds


def most_capacities(draw: st.DrawFn, cost: Any) -> Iterator[tuple[Constraint, Rule]]:
    count = draw(st.integers(1, 3))
    yield MostCapacities(count), lambda levels: len(set(levels)) <= count


def custom(draw: st.DrawFn, cost: Any) -> Iterator[tuple[Constraint, Rule]]:
    count = draw(st.integers(0, len(cost)))
    top = cost.shape[1] - 1
    rules: list[tuple[Any, Rule]] = [
        (
            lambda share: [cp.sum(share[:, -1]) >= count],
            lambda levels: levels.count(top) >= count,
        ),
        (
            lambda share: [share[0] == share[-1]],
            lambda levels: levels[0] == levels[-1],
        ),
        (
            # a distance, which is convex and piecewise linear
            lambda share: [cp.abs(cp.sum(share @ np.arange(top + 1)) - count) <= 1],
            lambda levels: abs(sum(levels) - count) <= 1,
        ),
    ]
    function, rule = draw(st.sampled_from(rules))
    yield Custom(function), rule


MAKERS: dict[type, Any] = {
    ByteLimit: byte_limits,
    MostCapacities: most_capacities,
    Custom: custom,
}

PAIRS = [(wanted, make) for wanted in COUPLING for make in able(*wanted)]


@pytest.mark.parametrize(("wanted", "make"), PAIRS, ids=name_of)
def test_a_plan_honours_what_couples_units(wanted: tuple[type, ...], make: type[Solver]) -> None:
    @settings(deadline=None, max_examples=examples(make))
    @given(case=coupled(wanted))
    def holds(case: tuple[Problem, Plans]) -> None:
        problem, plans = case
        check(problem, solve(problem, make()), plans)

    holds()


@pytest.mark.parametrize("wanted", COUPLING, ids=name_of)
def test_somebody_honours_everything(wanted: tuple[type, ...]) -> None:
    assert able(*wanted)


@pytest.mark.parametrize(("wanted", "make"), PAIRS, ids=name_of)
def test_the_same_problem_gets_the_same_answer(
    wanted: tuple[type, ...], make: type[Solver]
) -> None:
    @settings(deadline=None, max_examples=5)
    @given(case=coupled(wanted))
    def holds(case: tuple[Problem, Plans]) -> None:
        assert solve(case[0], make()) == solve(case[0], make())

    holds()


@pytest.mark.parametrize("make", SOLVERS, ids=name_of)
@pytest.mark.parametrize("wanted", COUPLING[:5], ids=name_of)
def test_a_solver_that_cannot_names_those_that_can(
    wanted: tuple[type, ...], make: type[Solver]
) -> None:
    constraints = {
        ByteLimit: (ByteLimit(9),),
        MostCapacities: (MostCapacities(1),),
        Custom: (Custom(lambda share: []),),
    }
    risks: dict[type, Risk] = {WorstSample: WorstSample(), CVaR: CVaR(0.5)}
    kind = wanted[0]
    problem = Problem(
        [[1.0, 0.0]],
        [[1, 2]],
        2,
        constraints.get(kind, ()),
        sample_loss=[[[1.0, 0.0]]],
        risk=risks.get(kind, Mean()),
    )
    if kind in make.honours:
        assert solve(problem, make()).status.has_plan
        return
    with pytest.raises(ValueError, match=f"`solver` must honour {kind.__name__}") as refusal:
        solve(problem, make())
    for each in able(kind):
        assert each.__name__ in str(refusal.value)


LEVELS = (0.05, 0.3, 1.0)
CONTEXT_TOKENS = 40


@st.composite
def profiled(draw: st.DrawFn) -> tuple[Problem, Plans]:
    """A problem from a profile with constraints that any solver honours, and all its plans."""
    windows = draw(st.sampled_from([(None, None), (16, None), (None, 3)]))
    geometry = Geometry("LlamaForCausalLM", 2, 2, 8, 4, "bfloat16", windows)
    samples = rows(draw, st.integers(0, 9), 2, 2, 2, 3).astype(float)
    samples = running_minimum(samples)
    profile = Profile(
        loss=samples.mean(axis=0),
        sample_loss=samples,
        kept_fraction=LEVELS,
        geometry=geometry,
        model="tests/tiny",
        heuristic="observation_window",
        heuristic_settings=(),
        measure="output_error",
        made_by="a test",
    )
    tokens = st.integers(1, CONTEXT_TOKENS + 5)
    layer = st.sampled_from([None, (0,), (1,)])
    constraint = st.one_of(
        st.builds(EqualInLayer, layer),
        st.builds(LeastTokens, tokens, layer, layer),
        st.builds(MostTokens, tokens, layer, layer),
        st.builds(Protected, st.sampled_from([(0,), (1,)]), layer),
        st.builds(WholePages, st.sampled_from([1, 4, 6, 16])),
    )
    constraints = tuple(draw(st.lists(constraint, min_size=1, max_size=3)))
    budget = draw(st.sampled_from(["10%", "30%", "50%", "75%", "100%"]))
    problem = Problem.from_profile(
        profile, budget=budget, context_tokens=CONTEXT_TOKENS, constraints=constraints
    )
    at = np.arange(4)

    def obeys(levels: tuple[int, ...]) -> bool:
        assert problem.origin is not None
        capacity = problem.origin.capacity_tokens[at, levels]
        return all(holds(each, capacity, needed_tokens(geometry)) for each in constraints)

    return problem, plans_of(problem, obeys, lambda levels: problem.loss[at, levels].sum())


def needed_tokens(geometry: Geometry) -> list[int]:
    """All that each of the four caches can need, as the attention of its layer says."""
    windows = [CONTEXT_TOKENS if window is None else window for window in geometry.windows]
    return [min(windows[unit // 2], CONTEXT_TOKENS) for unit in range(4)]


def holds(constraint: Constraint, capacity: Any, needed: list[int]) -> bool:
    """What a constraint means, cache by cache; nothing here is shared with the library."""
    if isinstance(constraint, WholePages):
        pages = constraint.page_tokens
        return all(c % pages == 0 or c == need for c, need in zip(capacity, needed, strict=True))
    layers = (0, 1) if constraint.layers is None else constraint.layers
    if isinstance(constraint, EqualInLayer):
        return all(capacity[2 * layer] == capacity[2 * layer + 1] for layer in layers)
    heads = (0, 1) if constraint.kv_heads is None else constraint.kv_heads
    units = [2 * layer + head for layer in layers for head in heads]
    if isinstance(constraint, LeastTokens):
        return all(capacity[unit] >= min(constraint.tokens, needed[unit]) for unit in units)
    if isinstance(constraint, MostTokens):
        return all(capacity[unit] <= constraint.tokens for unit in units)
    return all(capacity[unit] == needed[unit] for unit in units)


@pytest.mark.parametrize("make", SOLVERS, ids=name_of)
def test_every_solver_honours_what_is_worked_into_the_menus(make: type[Solver]) -> None:
    @settings(deadline=None, max_examples=examples(make))
    @given(case=profiled())
    def sound(case: tuple[Problem, Plans]) -> None:
        problem, plans = case
        solution = solve(problem, make())
        if not plans:
            assert solution.status is Status.INFEASIBLE
            return
        optimum = min(plans.values())
        assert tuple(solution.levels.tolist()) in plans
        assert solution.bound <= optimum + 1e-9
        assert solution.loss >= optimum - 1e-9
        plan = solution.plan
        assert plan.used_bytes <= solution.used_bytes <= problem.budget_bytes
        for constraint in problem.constraints:
            assert holds(constraint, plan.capacity_tokens.ravel(), needed_tokens(plan.geometry))

    sound()


@pytest.mark.parametrize("make", able(ByteLimit, MostCapacities), ids=name_of)
@settings(deadline=None, max_examples=15)
@given(case=profiled(), most=st.integers(1, 3), share=st.integers(20, 90))
def test_menus_and_couplings_hold_together(
    make: type[Solver], case: tuple[Problem, Plans], most: int, share: int
) -> None:
    plain, menu_plans = case
    origin = plain.origin
    assert origin is not None
    first = ByteLimit(f"{share}%", kv_heads=(0,))
    problem = Problem(
        plain.loss,
        plain.cost_bytes,
        plain.budget_bytes,
        (*plain.constraints, MostCapacities(most), first),
        origin,
    )
    of_head = plain.cost_bytes[[0, 2]]
    limit = int(of_head[:, -1].sum()) * share // 100
    plans = {
        levels: loss
        for levels, loss in menu_plans.items()
        if len(set(origin.capacity_tokens[np.arange(4), levels].tolist())) <= most
        and of_head[[0, 1], [levels[0], levels[2]]].sum() <= limit
    }
    check(problem, solve(problem, make()), plans)
