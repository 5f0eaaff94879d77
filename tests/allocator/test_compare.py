import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from kvbudget.allocator import (
    Choice,
    Comparison,
    ComparisonRow,
    CVaR,
    Mean,
    Plan,
    Problem,
    Profile,
    Risk,
    Solver,
    Status,
    Tokens,
    WorstSample,
    allocate,
    compare,
    solve,
)
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import ByteLimit, LeastTokens, MostCapacities
from kvbudget.allocator.solvers import Greedy, HeadKV, Hull, OptunaSearch, Uniform

BUDGETS = ["1%", "40%", Tokens(30), 9000]


@dataclass(frozen=True, slots=True)
class Able(Solver):
    """Takes the lowest levels, which honours byte limits."""

    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset({ByteLimit})

    def choose(self, problem: Problem) -> Choice:
        return Choice(np.zeros(len(problem.loss), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Unable(Able):
    """The same, but honours nothing."""

    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset()


def row(solver: str, budget_bytes: int, loss: float, **changes: Any) -> ComparisonRow:
    plain = ComparisonRow(
        solver, f"{budget_bytes // 10}%", loss, loss / 2, 0.5, budget_bytes, 1, 0.0, Status.FEASIBLE
    )
    return replace(plain, **changes)


def test_there_is_a_row_for_every_budget_and_solver(profile: Profile) -> None:
    comparison = compare(profile, budgets=BUDGETS, solvers=[Uniform(), Hull()], context_tokens=1000)
    assert [(row.budget, row.solver) for row in comparison.rows] == [
        (text, name)
        for text in ("1%", "40%", "30 tokens per cache", "9000")
        for name in ("Uniform", "Hull")
    ]


def test_rows_hold_what_solve_gives(profile: Profile) -> None:
    comparison = compare(
        profile, budgets=["40%"], solvers=[Greedy(), Hull()], context_tokens=100, batch_size=2
    )
    greedy, hull = comparison.rows
    assert hull.loss <= greedy.loss
    assert hull.bound == greedy.bound <= hull.loss
    assert hull.used_bytes <= hull.budget_bytes == greedy.budget_bytes
    assert hull.gap == pytest.approx((hull.loss - hull.bound) / hull.loss)
    assert (comparison.model, comparison.measure) == (profile.model, profile.measure)


@pytest.mark.parametrize("risk", [Mean(), CVaR(0.5)])
def test_constraints_and_risk_reach_the_problem(
    profile: Profile, risk: Risk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Able, "honours", frozenset({ByteLimit, CVaR}))
    arguments: dict[str, Any] = {
        "context_tokens": 100,
        "constraints": (LeastTokens(25), ByteLimit("50%", layers=(0,))),
        "risk": risk,
    }
    (found,) = compare(profile, budgets=["60%"], solvers=[Able()], **arguments).rows
    wanted = solve(Problem.from_profile(profile, budget="60%", **arguments), Able())
    assert replace(found, seconds=0.0) == replace(
        ComparisonRow.of("60%", wanted, "Able"), seconds=0.0
    )


def test_a_solver_that_cannot_is_a_row_that_says_so(profile: Profile) -> None:
    comparison = compare(
        profile,
        budgets=["40%", "60%"],
        solvers=[Unable(), Able()],
        context_tokens=100,
        constraints=(ByteLimit("50%", layers=(0,)), LeastTokens(10)),
    )
    refused, able = comparison.rows[:2]
    assert (refused.status, refused.outcome, refused.has_plan) == (None, "REFUSED", False)
    assert refused.note == "cannot honour ByteLimit"
    assert able.has_plan
    assert able.note == ""
    record = refused.to_record()
    assert (record["status"], record["loss"], record["note"]) == ("REFUSED", None, refused.note)
    lines = str(comparison).splitlines()
    assert lines[-1] == "Unable: cannot honour ByteLimit"
    assert sum("Unable" in line for line in lines) == 1


def test_everything_that_a_solver_cannot_honour_is_named(profile: Profile) -> None:
    asked: dict[str, Any] = {
        "context_tokens": 100,
        "constraints": (ByteLimit("50%"), MostCapacities(2)),
        "risk": WorstSample(),
    }
    (found,) = compare(profile, budgets=["40%"], solvers=[Able()], **asked).rows
    assert found.note == "cannot honour MostCapacities and WorstSample"
    assert found.loss == np.inf
    problem = Problem.from_profile(profile, budget="40%", **asked)
    with pytest.raises(ValueError, match="must honour MostCapacities and WorstSample"):
        solve(problem, Able())


def test_no_solver_pays_for_being_first(profile: Profile) -> None:
    seen: list[tuple[int, ...]] = []

    @dataclass(frozen=True, slots=True)
    class Watched(Able):
        power: int = 1

        def choose(self, problem: Problem) -> Choice:
            seen.append(problem.loss.shape)
            return Choice(np.zeros(len(problem.loss), dtype=np.int64))

    compare(profile, budgets=["40%", "60%"], solvers=[Watched(), Watched(2)], context_tokens=100)
    # once for the class on two caches, then every solver on every budget
    assert seen == [(2, 3), (6, 4), (6, 4), (6, 4), (6, 4)]


def test_a_solver_for_one_model_only_can_be_compared(profile: Profile) -> None:
    @dataclass(frozen=True, slots=True)
    class SixCaches(Able):
        def choose(self, problem: Problem) -> Choice:
            return Choice(np.zeros(len(problem.loss), dtype=np.int64) + np.zeros(6, dtype=np.int64))

    (found,) = compare(profile, budgets=["40%"], solvers=[SixCaches()], context_tokens=100).rows
    assert found.has_plan


def test_an_error_of_a_solver_is_a_row_and_costs_no_other_row(profile: Profile) -> None:
    @dataclass(frozen=True, slots=True)
    class Faulty(Able):
        def choose(self, problem: Problem) -> Choice:
            raise KeyError("mine")

    found = compare(profile, budgets=["40%"], solvers=[Faulty(), Hull()], context_tokens=100)
    assert [row.outcome for row in found.rows] == ["FAILED", "FEASIBLE"]
    assert found.rows[0].note == "KeyError: 'mine'"
    assert "Faulty: KeyError: 'mine'" in str(found)


def test_solvers_that_share_a_name_are_told_apart(profile: Profile) -> None:
    weighed = [HeadKV(importance=[[1.0, 2.0]] * 3), HeadKV(importance=[[2.0, 1.0]] * 3), Hull()]
    found = compare(profile, budgets=["40%", "60%"], solvers=weighed, context_tokens=100)
    names = [row.solver for row in found.rows]
    assert names == ["HeadKV", "HeadKV #2", "Hull"] * 2


def test_a_row_holds_its_plan(profile: Profile) -> None:
    (row,) = compare(profile, budgets=["40%"], solvers=[Hull()], context_tokens=100).rows
    assert row.solution is not None
    assert row.solution.plan == allocate(profile, budget="40%", context_tokens=100)


def test_records_are_json_even_without_a_plan(profile: Profile) -> None:
    comparison = compare(profile, budgets=iter(BUDGETS), solvers=[Hull()], context_tokens=1000)
    records = json.loads(json.dumps(comparison.to_records(), allow_nan=False))
    assert records[0]["status"] == "INFEASIBLE"
    assert records[0]["loss"] is records[0]["bound"] is records[0]["gap"] is None
    assert "the smallest needs" in records[0]["note"]
    assert records[1]["loss"] == comparison.rows[1].loss
    fields = {"solver", "budget", "loss", "bound", "gap", "budget_bytes", "used_bytes"}
    assert set(records[1]) == fields | {"seconds", "status", "note"}


def test_the_tightest_bound_of_all_solvers_holds_for_each_budget() -> None:
    rows = (
        row("A", 100, 8.0, bound=1.0),
        row("B", 100, 7.0, bound=3.0),
        row("A", 200, 2.0, bound=0.5),
        row("C", 100, np.inf, bound=np.inf, status=Status.INFEASIBLE),
    )
    assert Comparison(rows).bounds == {100: 3.0, 200: 0.5}


def test_best_first_keeps_budgets_together_in_their_order() -> None:
    rows = (
        row("A", 200, 8.0),
        row("B", 200, 7.0, seconds=2.0),
        row("C", 200, 7.0, seconds=1.0),
        row("D", 200, np.inf, status=None),
        row("A", 100, 9.0),
        row("B", 100, 3.0),
    )
    comparison = Comparison(rows, model="m", measure="x").best_first()
    assert [each.solver for each in comparison.rows] == [*"CBAD", *"BA"]
    assert [each.budget_bytes for each in comparison.rows] == [200] * 4 + [100] * 2
    assert (comparison.model, comparison.measure) == ("m", "x")


def test_no_budgets_give_an_empty_table(profile: Profile) -> None:
    comparison = compare(profile, budgets=[], solvers=[Hull()], context_tokens=10)
    assert comparison.rows == ()
    assert str(comparison).split()[0] == "solver"


@pytest.mark.parametrize("budgets", ["25%", 100, Tokens(3), None])
def test_a_single_budget_is_refused(profile: Profile, budgets: Any) -> None:
    with pytest.raises(TypeError, match="`budgets` must be a list of budgets"):
        compare(profile, budgets=budgets, solvers=[Hull()], context_tokens=10)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Hull(), "`solvers` must be a list of solvers"),
        ([Hull], r"Pass Hull\(\)"),
        (["hull"], "`solver` must be a solver object"),
    ],
)
def test_solvers_are_checked_before_anything_is_solved(
    profile: Profile, solver: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        compare(profile, budgets=["banana"], solvers=solver, context_tokens=10)


USERS_FILE = '''
from dataclasses import dataclass
import numpy as np
import kvbudget as kvb
from kvbudget.allocator import Choice, Problem, Solver

@dataclass(frozen=True, slots=True)
class FirstCome(Solver):
    """Earlier caches take all they can."""

    def choose(self, problem: Problem) -> Choice:
        levels = np.zeros(len(problem.loss), dtype=np.int64)
        left = problem.budget_bytes - problem.floor_bytes
        for unit, cost in enumerate(problem.cost_bytes):
            levels[unit] = np.flatnonzero(cost - cost[0] <= left)[-1]
            left -= cost[levels[unit]] - cost[0]
        return Choice(levels)

if __name__ == "__main__":
    mine = [FirstCome(), kvb.solvers.Hull()]
    profile = kvb.Profile.load("profile.safetensors")
    comparison = kvb.compare(profile, budgets=["40%"], solvers=mine, context_tokens=100)
    comparison.plot("mine.svg")
    print(comparison)
'''


def test_a_solver_in_a_users_file_joins_in_one_line(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USERS_FILE)
    profile.save(tmp_path / "profile.safetensors")
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    mine, hull = [line.split() for line in done.stdout.splitlines()[3:]]
    assert (mine[0], hull[0]) == ("FirstCome", "Hull")
    assert float(mine[1]) >= float(hull[1]) >= float(hull[3])
    assert ">FirstCome<" in (tmp_path / "mine.svg").read_text()
    of_solver = USERS_FILE.split("\n\n")[1:3]
    assert len("\n".join(of_solver).splitlines()) <= 15


def test_the_warm_up_never_calls_the_objective_of_a_search(profile: Profile) -> None:
    seen: list[Plan] = []

    def objective(plan: Plan) -> float:
        seen.append(plan)
        return plan.loss

    search = OptunaSearch(objective=objective, trials=2)
    compare(profile, budgets=["40%"], solvers=[search], context_tokens=100)
    assert {plan.context_tokens for plan in seen} == {100}
