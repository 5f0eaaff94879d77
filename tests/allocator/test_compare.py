import json
from typing import Any

import pytest

from kvbudget.allocator import Profile, Status, Tokens, compare, solvers
from kvbudget.allocator.solvers import Greedy, Hull, Uniform

BUDGETS = ["1%", "40%", Tokens(30), 9000]


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


def test_records_are_json_even_without_a_plan(profile: Profile) -> None:
    comparison = compare(profile, budgets=iter(BUDGETS), solvers=[Hull()], context_tokens=1000)
    records = json.loads(json.dumps(comparison.to_records(), allow_nan=False))
    assert records[0]["status"] == "INFEASIBLE"
    assert records[0]["loss"] is records[0]["bound"] is records[0]["gap"] is None
    assert records[1]["loss"] == comparison.rows[1].loss
    fields = {"solver", "budget", "loss", "bound", "gap", "budget_bytes", "used_bytes"}
    assert set(records[1]) == fields | {"seconds", "status"}


def test_the_table_is_aligned(profile: Profile) -> None:
    every = [getattr(solvers, name)() for name in solvers.__all__]
    table = str(compare(profile, budgets=BUDGETS, solvers=every, context_tokens=1000))
    lines = table.splitlines()
    assert len(lines) == 1 + len(BUDGETS) * len(every)
    assert lines[0].split() == "solver budget loss bound gap memory of time status".split()
    column = lines[0].index("status")
    assert all(line[column:] in Status.__members__ for line in lines[1:])
    assert all(line[column - 1] == " " for line in lines)


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
