"""Models whose layers have caches of unequal number and size, against counting by hand."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import (
    BadFile,
    CacheShape,
    Constraint,
    Exact,
    Geometry,
    Greedy,
    Hull,
    InfeasibleBudget,
    Path,
    Plan,
    Problem,
    Profile,
    Solver,
    Tokens,
    Uniform,
    WorstSample,
    allocate,
    compare,
    solve,
    solve_path,
    solvers,
)
from kvbudget.allocator.constraints import (
    ByteLimit,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
    Protected,
    WholePages,
)

LEVELS = (0.25, 0.5, 1.0)
CONTEXT = 20
BATCH = 2
SEARCHES = ("OptunaSearch", "EvolKV", "KVTuner")
Capacities = dict[tuple[int, int], int]
"""Tokens of each cache, by layer and KV head."""


@dataclass(frozen=True)
class Model:
    """Layers written out by hand: KV heads, bytes of a token, window, and the losses."""

    heads: list[int]
    sizes: list[tuple[int, int]]
    windows: list[int | None]
    loss: list[list[list[float]]]

    @property
    def caches(self) -> list[tuple[int, int]]:
        return [(layer, head) for layer, count in enumerate(self.heads) for head in range(count)]

    def token_bytes(self, layer: int) -> int:
        return 2 * sum(self.sizes[layer]) * BATCH

    def tokens(self, layer: int, level: int) -> int:
        return min(int(LEVELS[level] * CONTEXT), self.windows[layer] or CONTEXT)

    def bytes_of(self, kept: Capacities) -> int:
        return sum(count * self.token_bytes(layer) for (layer, _), count in kept.items())

    def plans(self) -> Iterator[tuple[Capacities, float]]:
        """Every plan and what it loses."""
        for levels in itertools.product(range(len(LEVELS)), repeat=len(self.caches)):
            chosen = dict(zip(self.caches, levels, strict=True))
            kept = {cache: self.tokens(cache[0], level) for cache, level in chosen.items()}
            yield kept, sum(self.loss[c[0]][c[1]][level] for c, level in chosen.items())

    def least_loss(self, budget: int, allowed: Callable[[Capacities], bool]) -> float | None:
        fitting = [
            loss for kept, loss in self.plans() if self.bytes_of(kept) <= budget and allowed(kept)
        ]
        return min(fitting, default=None)

    def profile(self) -> Profile:
        shapes = [CacheShape(n, *size) for n, size in zip(self.heads, self.sizes, strict=True)]
        geometry = Geometry.of_layers("Gemma4", shapes, "bfloat16", tuple(self.windows))
        loss = np.zeros((len(shapes), max(self.heads), len(LEVELS)))
        for layer, head in self.caches:
            loss[layer, head] = self.loss[layer][head]
        return Profile(
            loss=loss,
            sample_loss=loss[None],
            kept_fraction=np.array(LEVELS),
            geometry=geometry,
            model="tests/unequal",
            heuristic="observation_window",
            heuristic_settings=(),
            measure="divergence",
        )


@st.composite
def models(draw: st.DrawFn) -> Model:
    heads = draw(st.lists(st.integers(1, 3), min_size=2, max_size=3).filter(lambda x: sum(x) < 7))
    size = st.tuples(st.integers(1, 4), st.integers(1, 4))
    curve = st.lists(st.integers(0, 30), min_size=3, max_size=3)
    return Model(
        heads=heads,
        sizes=[draw(size) for _ in heads],
        windows=[draw(st.sampled_from((None, 7, 12))) for _ in heads],
        loss=[[sorted(map(float, draw(curve)))[::-1] for _ in range(n)] for n in heads],
    )


def kept_by(plan: Plan, model: Model) -> Capacities:
    """What a plan keeps; nothing may be kept where there is no cache."""
    tokens = plan.capacity_tokens.tolist()
    beside = [t for i, row in enumerate(tokens) for t in row[model.heads[i] :]]
    assert not any(beside)
    return {(layer, head): tokens[layer][head] for layer, head in model.caches}


def check_plan(plan: Plan, model: Model, budget: int) -> None:
    kept = kept_by(plan, model)
    losses = [loss for other, loss in model.plans() if other == kept]
    assert plan.used_bytes == model.bytes_of(kept) <= plan.budget_bytes == budget
    assert min(losses) <= plan.loss + 1e-9
    assert plan.bound <= plan.loss + 1e-9


@given(model=models(), share=st.floats(0.2, 1.0))
def test_the_best_plan_is_the_best_of_all(model: Model, share: float) -> None:
    whole = max(model.bytes_of(kept) for kept, _ in model.plans())
    profile, budget = model.profile(), int(share * whole)
    assert profile.geometry.full_bytes(CONTEXT, BATCH) == whole
    least = model.least_loss(budget, lambda _: True)
    problem = Problem.from_profile(profile, budget=budget, context_tokens=CONTEXT, batch_size=BATCH)
    solution = solve(problem, Exact())
    assert solution.status.has_plan == (least is not None)
    if least is not None:
        assert solution.loss == pytest.approx(least)
        check_plan(solution.plan, model, budget)
        for solver in (Hull(), Greedy(), Uniform()):
            other = solve(problem, solver)
            check_plan(other.plan, model, budget)
            assert other.bound <= least + 1e-9 <= other.loss + 2e-9


def of_layer(kept: Capacities, layer: int) -> list[int]:
    return [count for cache, count in kept.items() if cache[0] == layer]


CASES: list[tuple[Constraint, Callable[[Model, Capacities], bool]]] = [
    (EqualInLayer(), lambda m, k: all(len(set(of_layer(k, i))) == 1 for i in range(len(m.heads)))),
    (EqualInLayer(layers=(1,)), lambda m, k: len(set(of_layer(k, 1))) == 1),
    (LeastTokens(9), lambda m, k: all(n >= min(9, m.tokens(c[0], 2)) for c, n in k.items())),
    (MostTokens(10, layers=(0,)), lambda m, k: max(of_layer(k, 0)) <= 10),
    (Protected(layers=(1,)), lambda m, k: all(n == m.tokens(1, 2) for n in of_layer(k, 1))),
    (
        Protected(kv_heads=(0,)),
        lambda m, k: all(k[layer, 0] == m.tokens(layer, 2) for layer in range(len(m.heads))),
    ),
    (
        ByteLimit(Tokens(9), layers=(0,)),
        lambda m, k: sum(of_layer(k, 0)) <= 9 * m.heads[0],
    ),
    (
        ByteLimit(Tokens(9), layers=(1,)),
        lambda m, k: sum(of_layer(k, 1)) <= 9 * m.heads[1],
    ),
    (
        ByteLimit("60%", kv_heads=(0,)),
        lambda m, k: (
            10 * sum(n * m.token_bytes(c[0]) for c, n in k.items() if c[1] == 0)
            <= 6 * sum(m.tokens(i, 2) * m.token_bytes(i) for i in range(len(m.heads)))
        ),
    ),
    (MostCapacities(1), lambda m, k: len(set(k.values())) == 1),
    (MostCapacities(2), lambda m, k: len(set(k.values())) <= 2),
]


@pytest.mark.parametrize(("constraint", "holds"), CASES, ids=lambda case: str(case)[:24])
@settings(max_examples=15, deadline=None)
@given(model=models(), share=st.floats(0.3, 1.0))
def test_a_constraint_holds_for_the_caches_that_are_there(
    constraint: Constraint,
    holds: Callable[[Model, Capacities], bool],
    model: Model,
    share: float,
) -> None:
    profile = model.profile()
    budget = max(1, int(share * profile.geometry.full_bytes(CONTEXT, BATCH)))
    problem = Problem.from_profile(
        profile,
        budget=budget,
        context_tokens=CONTEXT,
        batch_size=BATCH,
        constraints=(constraint,),
    )
    solver: Solver = solvers.MixedInteger() if constraint.couples else Exact()
    solution = solve(problem, solver)
    least = model.least_loss(budget, lambda kept: holds(model, kept))
    assert solution.status.has_plan == (least is not None)
    if least is not None:
        assert solution.loss == pytest.approx(least, abs=1e-4)
        check_plan(solution.plan, model, budget)
        assert holds(model, kept_by(solution.plan, model))


@given(model=models(), share=st.floats(0.3, 1.0))
def test_pages_are_counted_in_the_bytes_of_their_layer(model: Model, share: float) -> None:
    profile = model.profile()
    budget = int(share * profile.geometry.full_bytes(CONTEXT, BATCH))
    problem = Problem.from_profile(
        profile,
        budget=budget,
        context_tokens=CONTEXT,
        batch_size=BATCH,
        constraints=(WholePages(4),),
    )
    for unit, (layer, _) in enumerate(model.caches):
        pages = [-(-model.tokens(layer, level) // 4) for level in range(3)]
        stored = [count * 4 * model.token_bytes(layer) for count in pages]
        assert problem.cost_bytes[unit].tolist() == stored


@pytest.fixture(scope="module")
def model() -> Model:
    """Three layers of unequal caches with random losses."""
    rng = np.random.default_rng(3)
    heads = [3, 1, 2]
    loss = [[(-np.sort(-rng.exponential(size=3))).tolist() for _ in range(n)] for n in heads]
    return Model(heads, [(4, 4), (8, 6), (2, 3)], [12, None, None], loss)


@pytest.mark.parametrize("name", sorted(set(solvers.__all__) - set(SEARCHES)))
@pytest.mark.parametrize("share", ["45%", "60%", "85%", "100%"])
@pytest.mark.parametrize("constraints", [(), (EqualInLayer(),)])
def test_every_solver_divides_unequal_layers(
    name: str, share: str, constraints: tuple[Constraint, ...], model: Model
) -> None:
    solver: Solver = getattr(solvers, name)()
    arguments = {"budget": share, "context_tokens": CONTEXT, "constraints": constraints}
    plan = allocate(model.profile(), batch_size=BATCH, solver=solver, **arguments)  # type: ignore[arg-type]
    check_plan(plan, model, plan.budget_bytes)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_divides_unequal_layers(name: str, model: Model) -> None:
    count = {"EvolKV": "trials_per_group"}.get(name, "trials")
    solver = getattr(solvers, name)(**{count: 5})
    plan = allocate(
        model.profile(), budget="55%", context_tokens=CONTEXT, batch_size=BATCH, solver=solver
    )
    check_plan(plan, model, plan.budget_bytes)


def test_a_risk_counts_the_samples_of_the_caches_that_are_there(unequal_profile: Profile) -> None:
    problem = Problem.from_profile(
        unequal_profile, budget="60%", context_tokens=100, risk=WorstSample()
    )
    levels = solve(problem, Hull()).levels.tolist()
    caches = np.argwhere(unequal_profile.geometry.present).tolist()
    totals = [
        sum(sample[layer][head][at] for (layer, head), at in zip(caches, levels, strict=True))
        for sample in unequal_profile.sample_loss.tolist()
    ]
    assert problem.total_loss(np.array(levels)) == pytest.approx(max(totals))


def test_a_budget_of_tokens_is_what_they_take_in_every_cache(model: Model) -> None:
    plan = allocate(model.profile(), budget=Tokens(5), context_tokens=CONTEXT, batch_size=BATCH)
    assert plan.budget_bytes == sum(5 * model.token_bytes(layer) for layer, _ in model.caches)
    with pytest.raises(InfeasibleBudget, match="6 caches at 5 tokens of 20"):
        allocate(model.profile(), budget=Tokens(4), context_tokens=CONTEXT)


def test_importance_gives_bytes_to_the_caches_that_are_there(unequal: Geometry) -> None:
    profile = Profile.from_importance([[1, 1, 1], [2, 0, 0], [1, 3, 0]], unequal)
    assert (profile.loss[~unequal.present] == 0).all()
    plan = allocate(profile, budget="50%", context_tokens=1000)
    assert plan.capacity_tokens[2, 1] > plan.capacity_tokens[2, 0]
    with pytest.raises(ValueError, match="must be 0 where the layer has no such KV head"):
        Profile.from_importance(np.ones((3, 3)), unequal)


def test_a_path_holds_the_plans_of_every_budget(model: Model, tmp_path: FilePath) -> None:
    profile = model.profile()
    path = solve_path(profile, context_tokens=CONTEXT, batch_size=BATCH)
    for budget, loss in zip(path.budget_bytes.tolist(), path.loss.tolist(), strict=True):
        assert loss == pytest.approx(model.least_loss(budget, lambda _: True))
        check_plan(path.plan(budget), model, budget)
    path.save(tmp_path / "path")
    assert Path.load(tmp_path / "path") == path


def test_files_give_unequal_layers_back(
    unequal_profile: Profile, model: Model, tmp_path: FilePath
) -> None:
    unequal_profile.save(tmp_path / "profile")
    assert Profile.load(tmp_path / "profile") == unequal_profile
    plan = allocate(model.profile(), budget="50%", context_tokens=CONTEXT)
    plan.save(tmp_path / "plan")
    again = Plan.load(tmp_path / "plan")
    assert again == plan
    assert again.geometry.shapes == plan.geometry.shapes
    assert again.at(12) == plan.at(12)
    with pytest.raises(BadFile):
        Profile.load(tmp_path / "plan")


def test_a_loss_or_a_capacity_of_no_cache_is_refused(unequal_profile: Profile) -> None:
    loss = np.array(unequal_profile.loss)
    loss[1, 2, 0] = 0.5
    rule = "must be 0 where the layer has no such KV head, but got 0.5 at layer 1, KV head 2"
    fields = {f: getattr(unequal_profile, f) for f in unequal_profile.__slots__}
    with pytest.raises(ValueError, match=f"`loss` {rule}"):
        Profile(**{**fields, "loss": loss})
    with pytest.raises(ValueError, match="`sample_loss` must be 0 where"):
        Profile(**{**fields, "sample_loss": loss[None]})
    plan = allocate(unequal_profile, budget="50%", context_tokens=100)
    fields = {f: getattr(plan, f) for f in plan.__slots__}
    for value, message in ((1, "must be 0 where the layer has no"), (0, "must be in 1..100")):
        tokens = np.array(plan.capacity_tokens)
        tokens[1, value] = value
        with pytest.raises(ValueError, match=message):
            Plan(**{**fields, "capacity_tokens": tokens})


def test_a_selection_without_a_cache_is_refused(model: Model) -> None:
    for constraint in (ByteLimit("50%", layers=(1,), kv_heads=(2,)), Protected((1, 2), (2,))):
        with pytest.raises(ValueError, match=r"no layer of \(1.* has a KV head of \(2,\)"):
            allocate(
                model.profile(), budget="50%", context_tokens=CONTEXT, constraints=(constraint,)
            )


def test_words_and_tables_speak_of_the_caches_that_are_there(unequal_profile: Profile) -> None:
    plan = allocate(unequal_profile, budget="60%", context_tokens=100)
    kept = plan.capacity_tokens[plan.geometry.present]
    assert f"each keeps {kept.min()} to {kept.max()} of 100 tokens" in str(plan)
    assert f"{kept.mean():.1f} on average" in str(plan)
    lowest = unequal_profile.loss[..., 0][unequal_profile.geometry.present]
    assert f"at lowest {lowest.min():.3g} to" in str(unequal_profile)
    rows = compare(
        unequal_profile, budgets=["30%", "60%"], solvers=[Hull(), Uniform()], context_tokens=100
    ).rows
    assert all(0 < row.used_bytes <= row.budget_bytes for row in rows)
