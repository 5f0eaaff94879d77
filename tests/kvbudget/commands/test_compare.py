"""`kvbudget compare` on files."""

import json


def test_json_has_a_row_for_every_solver_and_budget(run, profile_file):
    done = run("compare", profile_file, "--context", 200, "--json")
    rows = json.loads(done.out)
    pairs = {(row["solver"], row["budget"]) for row in rows}
    solvers, budgets = {s for s, _ in pairs}, {b for _, b in pairs}
    assert {"Hull", "Uniform"} <= solvers
    assert budgets == {"10%", "25%", "50%"}
    assert len(rows) == len(solvers) * len(budgets)
    assert done.err == ""


def test_rows_can_be_chosen(run, profile_file):
    arguments = ("--budget", "25%", "--solver", "hull", "--solver", "uniform", "--json")
    hull, uniform = json.loads(run("compare", profile_file, "--context", 200, *arguments).out)
    assert hull["loss"] < uniform["loss"]
    assert hull["bound"] <= hull["loss"]


def test_a_budget_too_small_is_a_row_and_no_number(run, profile_file):
    arguments = ("--budget", "10", "--solver", "hull", "--json")
    (row,) = json.loads(run("compare", profile_file, "--context", 200, *arguments).out)
    assert row["status"] == "INFEASIBLE"
    assert row["loss"] is None


def test_the_table_shows_every_solver(run, profile_file):
    out = run("compare", profile_file, "--context", 200).out
    assert "Uniform" in out
    assert "LinearProgram" in out
