"""`kvbudget compare` on files."""

import json

import pytest

import kvbudget as kvb
from kvbudget.allocator import CVaR, constraints


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
    arguments = ("--budget", "10", "--budget", "50%", "--solver", "hull", "--json")
    done = run("compare", profile_file, "--context", 200, *arguments)
    row, other = json.loads(done.out)
    assert (row["status"], other["status"]) == ("INFEASIBLE", "FEASIBLE")
    assert row["loss"] is None
    assert done.code == 0


def test_budgets_of_which_none_has_a_plan_are_refused_as_allocate_refuses_the_largest(
    run, profile_file
):
    plain = (profile_file, "--context", 200, "--budget", "90")
    done = run("compare", *plain, "--budget", "10")
    assert (done.code, done.out) == (2, "")
    assert "No plan fits 90 B" in done.err
    assert done.err == run("allocate", *plain).err


def test_the_picture_is_not_drawn_over_the_profile(run, profile, tmp_path):
    profile.save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    done = run("compare", "mine.png", "--context", 200, "--plot", "mine.png")
    assert done.code == 2
    assert "`--plot` must not be the file of PROFILE, but got mine.png." in done.err
    assert (tmp_path / "mine.png").read_bytes() == before


def test_a_picture_of_another_kind_is_refused_in_words_of_the_command(run, profile_file):
    done = run("compare", profile_file, "--context", 200, "--plot", "a.jpg")
    assert "`--plot` must end in .png or .svg, but got 'a.jpg'." in done.err


def test_the_table_shows_every_solver(run, profile_file):
    out = run("compare", profile_file, "--context", 200).out
    assert "Uniform" in out
    assert "LinearProgram" in out


def test_the_table_puts_the_least_loss_first(run, profile_file):
    arguments = ("--budget", "25%", "--solver", "uniform", "--solver", "hull")
    lines = run("compare", profile_file, "--context", 200, *arguments).out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["Hull", "Uniform"]


@pytest.mark.parametrize("name", ["loss.png", "loss.svg"])
def test_a_picture_is_drawn_beside_the_table(run, profile_file, tmp_path, name):
    arguments = ("--budget", "25%", "--solver", "hull", "--plot", name)
    done = run("compare", profile_file, "--context", 200, *arguments)
    assert done.code == 0
    assert done.err == f"Wrote {name}.\n"
    assert "Hull" in done.out
    start = (tmp_path / name).read_bytes()[:5]
    assert start == (b"<?xml" if name.endswith("svg") else b"\x89PNG\r")


def test_limits_and_risk_reach_the_library(run, profile_file, monkeypatch):
    calls = []

    def refuse(profile, **arguments):
        calls.append(arguments)
        raise ValueError("not now")

    monkeypatch.setattr(kvb, "compare", refuse)
    arguments = ("--least-tokens", 9, "--most-tokens", 90, "--protect-layer", 1, "--equal-in-layer")
    more = ("--page-tokens", 4, "--layer-budget", "0=40%", "--head-budget", "1=1MiB")
    last = ("--most-capacities", 3, "--protect-layer", 0, "--batch", 3)
    plain = ("compare", profile_file, "--context", 200, "--risk", "cvar:0.5")
    run(*plain, *arguments, *more, *last)
    (call,) = calls
    assert call["constraints"] == (
        constraints.LeastTokens(9),
        constraints.MostTokens(90),
        constraints.Protected(layers=(0, 1)),
        constraints.EqualInLayer(),
        constraints.WholePages(4),
        constraints.ByteLimit("40%", layers=(0,)),
        constraints.ByteLimit("1MiB", kv_heads=(1,)),
        constraints.MostCapacities(3),
    )
    assert (call["risk"], call["batch_size"]) == (CVaR(0.5), 3)


@pytest.fixture
def only_hull_is_able(monkeypatch):
    """A package with two solvers, of which one honours a limit on the number of capacities."""
    monkeypatch.setattr(kvb.solvers, "__all__", ["Hull", "Uniform"])
    monkeypatch.setattr(kvb.solvers.Hull, "honours", frozenset({constraints.MostCapacities}))
    monkeypatch.setattr(kvb.solvers.Uniform, "honours", frozenset())


LOOSE = ("compare", "--context", 200, "--budget", "25%", "--most-capacities", 19)


@pytest.mark.usefixtures("only_hull_is_able")
def test_where_no_solver_is_named_those_that_cannot_are_left_out(run, profile_file):
    done = run(*LOOSE, profile_file, "--json")
    assert [row["solver"] for row in json.loads(done.out)] == ["Hull"]
    words = "Left out, as they cannot honour the constraints or the risk: Uniform.\n"
    assert done.err == words


@pytest.mark.usefixtures("only_hull_is_able")
def test_a_solver_that_was_named_but_cannot_says_so(run, profile_file):
    done = run(*LOOSE, profile_file, "--solver", "uniform", "--solver", "hull")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "Uniform: cannot honour MostCapacities"
    assert done.err == ""
