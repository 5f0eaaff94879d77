import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import (
    Geometry,
    InfeasibleBudget,
    Problem,
    Profile,
    Status,
    Tokens,
    allocate,
    solve,
)
from kvbudget.allocator.constraints import (
    EqualInLayer,
    LeastTokens,
    MostTokens,
    Protected,
    WholePages,
)
from kvbudget.allocator.path import Path
from kvbudget.allocator.solve_path import solve_path
from kvbudget.allocator.solvers import Hull

ARRAYS = Problem([[9.0, 5.0, 2.0], [8.0, 4.0, 1.0]], [[1, 2, 4], [1, 2, 4]], 5)


@pytest.fixture(scope="session")
def path(profile: Profile) -> Path:
    """The path of the small profile at 100 tokens."""
    return solve_path(profile, context_tokens=100)


def keeps(low: int, tokens: Any) -> bool:
    """Whether each cache keeps so many tokens, or its whole window of 16."""
    return all(
        t >= min(low, 16 if layer == 1 else 100) for layer, row in enumerate(tokens) for t in row
    )


CASES: list[tuple[tuple[Any, ...], Callable[[Any], bool]]] = [
    ((), lambda tokens: True),
    ((LeastTokens(25),), lambda tokens: keeps(25, tokens)),
    ((MostTokens(50, layers=(0, 2)),), lambda tokens: tokens[0].max() <= 50 >= tokens[2].max()),
    ((Protected(layers=(2,)),), lambda tokens: (tokens[2] == 100).all()),
    ((EqualInLayer(),), lambda tokens: (tokens[:, 0] == tokens[:, 1]).all()),
    (
        (EqualInLayer(layers=(0,)), LeastTokens(25), Protected(kv_heads=(1,), layers=(2,))),
        lambda tokens: tokens[0, 0] == tokens[0, 1] and keeps(25, tokens) and tokens[2, 1] == 100,
    ),
]


def every_choice(profile: Profile, allowed: Callable[[Any], bool]) -> list[tuple[int, float]]:
    """Bytes and loss of each way to give the six caches their capacities at 100 tokens."""
    tokens = profile.geometry.capacity_tokens(profile.kept_fraction, 100).reshape(6, 4)
    loss = np.minimum.accumulate(profile.loss.reshape(6, 4), axis=1)
    units, found = np.arange(6), []
    for choice in itertools.product(range(4), repeat=6):
        kept = tokens[units, list(choice)]
        if allowed(kept.reshape(3, 2)):
            found.append((int(kept.sum()) * 24, float(loss[units, list(choice)].sum())))
    return found


@pytest.mark.parametrize(("constraints", "allowed"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_point_is_the_best_of_all_choices_that_meet_the_constraints(
    make_profile: Callable[..., Profile],
    seed: int,
    constraints: tuple[Any, ...],
    allowed: Callable[[Any], bool],
) -> None:
    profile = make_profile(seed)
    path = solve_path(profile, context_tokens=100, constraints=constraints)
    choices = every_choice(profile, allowed)
    assert path.budget_bytes[0] == min(choices)[0]
    assert path.loss[-1] == pytest.approx(min(loss for _, loss in choices))
    for num_bytes, loss in zip(path.budget_bytes.tolist(), path.loss.tolist(), strict=True):
        plan = path.plan(num_bytes)
        assert plan.used_bytes == num_bytes
        assert allowed(plan.capacity_tokens)
        assert loss == pytest.approx(min(v for c, v in choices if c <= num_bytes))
    for (start, above), (end, below) in itertools.pairwise(
        zip(path.budget_bytes.tolist(), path.loss.tolist(), strict=True)
    ):
        # no choice lies below the line from one point to the next
        slope = (below - above) / (end - start)
        assert all(v >= above + slope * (c - start) - 1e-9 for c, v in choices)


@pytest.mark.parametrize("page_tokens", [1, 8, 7])
def test_whole_pages_are_counted(profile: Profile, page_tokens: int) -> None:
    path = solve_path(profile, context_tokens=100, constraints=(WholePages(page_tokens),))
    for num_bytes in path.budget_bytes.tolist():
        tokens = path.plan(num_bytes).capacity_tokens
        pages = -(-tokens // page_tokens)
        assert int(pages.sum()) * page_tokens * 24 == num_bytes
        most = np.array([[100], [16], [100]])
        assert ((tokens % page_tokens == 0) | (tokens == most)).all()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 50),
    share=st.floats(0.01, 1),
    tokens=st.integers(1, 499),  # from 510 on no level keeps 50 tokens or fewer
    case=st.sampled_from(CASES),
)
def test_it_agrees_with_solving_at_one_budget(
    make_profile: Callable[..., Profile], seed: int, share: float, tokens: int, case: Any
) -> None:
    profile, constraints = make_profile(seed), case[0]
    path = solve_path(profile, context_tokens=tokens, constraints=constraints)
    budget = max(1, int(share * profile.geometry.full_bytes(tokens)))
    problem = Problem.from_profile(
        profile, budget=budget, context_tokens=tokens, constraints=constraints
    )
    solved, found = solve(problem, Hull()), path.solution(budget)
    assert found.status.has_plan == solved.status.has_plan
    assert found.problem == problem
    if not found.status.has_plan:
        assert path.loss_at(budget) == math.inf
        return
    assert found.bound == pytest.approx(solved.bound, rel=1e-9, abs=1e-12)
    assert path.loss_at(budget) == pytest.approx(solved.bound, rel=1e-9, abs=1e-12)
    # the hull's plan is this one with the rest of the budget spent
    assert solved.loss <= found.loss + 1e-12
    assert found.used_bytes <= solved.used_bytes <= budget
    assert found.loss == pytest.approx(problem.total_loss(found.levels))
    assert found.gap == pytest.approx((found.loss - found.bound) / (found.loss or 1.0))


def test_a_breakpoint_is_optimal_and_a_byte_less_is_not(path: Path) -> None:
    for num_bytes, loss in zip(path.budget_bytes[1:].tolist(), path.loss[1:], strict=True):
        found = path.solution(num_bytes)
        assert (found.status, found.gap, found.loss) == (Status.OPTIMAL, 0.0, loss)
        assert found.bound == loss
        assert found.used_bytes == num_bytes
        before = path.solution(num_bytes - 1)
        assert (before.status, before.used_bytes < num_bytes) == (Status.FEASIBLE, True)
        assert loss < before.bound < before.loss


def test_a_breakpoint_is_optimal_even_where_large_losses_cancel() -> None:
    loss = [[1e6 + 2, 1e6 + 1, 1e6], [2 - 1e6, 1 - 1e6, 1e-6 - 1e6]]
    path = solve_path(Problem(loss, [[1, 2, 4], [1, 2, 4]], 0))
    for num_bytes in (*path.budget_bytes.tolist(), 99):
        assert path.solution(num_bytes).status is Status.OPTIMAL


def test_a_breakpoint_is_the_plan_of_the_hull(path: Path, profile: Profile) -> None:
    for num_bytes in path.budget_bytes.tolist():
        solved = allocate(profile, budget=num_bytes, context_tokens=100)
        assert np.array_equal(path.plan(num_bytes).capacity_tokens, solved.capacity_tokens)


def test_more_than_everything_is_optimal(path: Path) -> None:
    found = path.solution(10**30)
    assert (found.status, found.gap, found.loss) == (Status.OPTIMAL, 0.0, 0.0)
    assert path.plan("100%").capacity_tokens.tolist() == [[100, 100], [16, 16], [100, 100]]


@pytest.mark.parametrize("budget", ["60%", 6_000, "6000B", Tokens(40)])
def test_budgets_come_in_every_form(path: Path, profile: Profile, budget: Any) -> None:
    asked = allocate(profile, budget=budget, context_tokens=100).budget_bytes
    assert path.plan(budget).budget_bytes == asked
    assert path.solution(budget) == path.solution(asked)
    assert path.loss_at(budget) == path.loss_at(asked)
    assert np.array_equal(path.levels(budget), path.solution(asked).levels)


def test_below_the_floor_nothing_fits(path: Path) -> None:
    floor = int(path.budget_bytes[0])
    assert path.plan(floor).used_bytes == floor
    for lookup in (path.plan, path.levels):
        with pytest.raises(InfeasibleBudget, match=r"^No plan fits .* needs .*\(6 caches at"):
            lookup(floor - 1)
    found = path.solution(floor - 1)
    assert (found.status, found.loss, found.used_bytes) == (Status.INFEASIBLE, math.inf, 0)
    assert path.loss_at(floor - 1) == math.inf


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        (0, ValueError, "`budget` must be at least 1 byte"),
        ("101%", ValueError, "at most 100%"),
        ("much", ValueError, "must be a number with a unit"),
        (None, TypeError, "`budget` must be an int of bytes"),
        (1.5, TypeError, "`budget` must be an int of bytes"),
    ],
)
def test_a_budget_that_cannot_be_read_is_refused(
    path: Path, budget: Any, error: type[Exception], message: str
) -> None:
    for lookup in (path.plan, path.levels, path.solution, path.loss_at):
        with pytest.raises(error, match=message):
            lookup(budget)


@settings(deadline=None, max_examples=30)
@given(case=st.sampled_from(CASES), shares=st.lists(st.floats(0.3, 1), min_size=2, max_size=6))
def test_no_cache_keeps_more_when_the_budget_falls(
    profile: Profile, case: Any, shares: list[float]
) -> None:
    path = solve_path(profile, context_tokens=100, constraints=case[0])
    span = path.problem.budget_bytes - int(path.budget_bytes[0])
    budgets = [int(path.budget_bytes[0]) + int(share * span) for share in sorted(shares)]
    plans = [path.plan(budget) for budget in budgets]
    for small, big in itertools.pairwise(plans):
        assert (small.capacity_tokens <= big.capacity_tokens).all()
        assert small.loss >= big.loss


def test_a_plan_says_who_made_it_and_what_held(profile: Profile) -> None:
    path = solve_path(profile, context_tokens=100, batch_size=2, constraints=(LeastTokens(25),))
    plan = path.plan("60%")
    assert plan.certificate.solver == "Path"
    assert plan.certificate.constraints == ("LeastTokens(tokens=25)",)
    assert (plan.context_tokens, plan.batch_size) == (100, 2)
    for name in ("geometry", "model", "heuristic", "heuristic_settings", "measure", "made_by"):
        assert getattr(plan, name) == getattr(profile, name)
    assert plan.at(50).batch_size == 2


def test_a_lookup_copies_neither_the_curves_nor_the_problem(path: Path) -> None:
    assert path.plan("50%").curves is path.curves is not None
    assert path.solution("50%").problem.loss is path.problem.loss
    assert path.problem.budget_bytes == path.budget_bytes[-1]


def test_another_context_is_another_path(path: Path, profile: Profile) -> None:
    longer = path.at(1000)
    assert longer == solve_path(profile, context_tokens=1000) != path
    assert longer.at(100) == path
    with pytest.raises(ValueError, match="`context_tokens` must be at least 1"):
        path.at(0)


def test_another_context_keeps_batch_size_and_constraints(profile: Profile) -> None:
    given_ = {"batch_size": 3, "constraints": (EqualInLayer(), WholePages(8))}
    path = solve_path(profile, context_tokens=100, **given_)  # type: ignore[arg-type]
    wanted = solve_path(profile, context_tokens=777, **given_)  # type: ignore[arg-type]
    assert path.at(777) == wanted


def test_in_shares_it_is_nearly_the_same_for_every_length(
    make_profile: Callable[..., Profile],
) -> None:
    full = make_profile(geometry=Geometry("A", 3, 2, 8, 4, "bfloat16", (None,) * 3))
    short, long = solve_path(full, context_tokens=5_000), solve_path(full, context_tokens=500_000)
    assert np.allclose(short.kept_fraction, long.kept_fraction, rtol=1e-3)
    for share in ("15%", "40%", "80%"):
        assert short.loss_at(share) == pytest.approx(long.loss_at(share), rel=1e-3)


def test_arrays_have_a_path_but_no_plan() -> None:
    path = solve_path(ARRAYS)
    assert path.budget_bytes.tolist() == [2, 3, 4, 6, 8]
    assert path.loss.tolist() == [17.0, 13.0, 9.0, 6.0, 3.0]
    assert path.levels("50%").tolist() == [1, 1]
    assert path.solution(5).levels.tolist() == [1, 1]
    assert path.loss_at(5) == 7.5
    assert path.kept_fraction.tolist() == [0.25, 0.375, 0.5, 0.75, 1.0]
    with pytest.raises(ValueError, match=r"must come from Problem.from_profile"):
        path.plan(5)
    with pytest.raises(ValueError, match="`budget` must not be in tokens"):
        path.levels(Tokens(1))
    for refused in (lambda: path.at(10), lambda: path.save("x")):
        with pytest.raises(ValueError, match="`path` must be made from a profile"):
            refused()


def test_the_curve_comes_as_plain_data(path: Path) -> None:
    records = path.to_records()
    assert len(records) == len(path)
    full = 24 * (4 * 100 + 2 * 16)
    for record, num_bytes, loss in zip(records, path.budget_bytes, path.loss, strict=True):
        assert record == {
            "budget_bytes": num_bytes,
            "kept_fraction": num_bytes / full,
            "loss": loss,
        }
        assert [type(value) for value in record.values()] == [int, float, float]
    assert records[-1]["kept_fraction"] == 1.0


def test_it_reads_well(path: Path) -> None:
    lines = str(path).splitlines()
    assert lines[0] == f"Path for tests/tiny, 100 tokens: {len(path)} breakpoints"
    assert lines[1].endswith(f"loss {path.loss[0]:.4g} (lowest)")
    assert any("(50 %)" in line and f"{path.solution('50%').loss:.4g}" in line for line in lines)
    assert lines[-1].endswith("loss 0 (highest)")
    assert len(lines) <= 7
    assert str(solve_path(ARRAYS)).startswith("Path for units without a model: 5 breakpoints")


def test_paths_compare_by_content_and_not_by_the_budget_asked(problem: Problem) -> None:
    path = solve_path(problem)
    assert path == solve_path(replace(problem, budget_bytes=1))
    assert path != solve_path(replace(problem, loss=problem.loss * 2))
    assert path != "path"
    with pytest.raises(ValueError, match="read-only"):
        path.loss[0] = 1


def test_a_saved_path_loads_equal(profile: Profile, tmp_path: FilePath) -> None:
    constraints = (EqualInLayer(layers=(0,)), LeastTokens(20), WholePages(4))
    path = solve_path(profile, context_tokens=300, batch_size=2, constraints=constraints)
    path.save(tmp_path / "path.safetensors")
    loaded = Path.load(str(tmp_path / "path.safetensors"))
    assert loaded == path
    assert loaded.plan("50%") == path.plan("50%")
