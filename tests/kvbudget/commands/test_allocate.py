"""`kvbudget allocate` on files."""

import json

import pytest

import kvbudget as kvb


def test_the_plan_is_the_one_the_library_makes(run, profile, profile_file, tmp_path):
    done = run("allocate", profile_file, "--budget", "25%", "--context", 200)
    expected = kvb.allocate(profile, budget="25%", context_tokens=200)
    assert done.code == 0
    assert kvb.Plan.load(tmp_path / "plan.json") == expected
    assert done.out == f"{expected}\n"


def test_json_stands_alone_and_agrees_with_the_plan(run, profile_file, tmp_path):
    done = run("allocate", profile_file, "--budget", "25%", "--context", 200, "--json")
    record, plan = json.loads(done.out), kvb.Plan.load(tmp_path / "plan.json")
    assert record["used_bytes"] == plan.used_bytes <= record["budget_bytes"] == plan.budget_bytes
    assert record["capacity_tokens"] == plan.capacity_tokens.tolist()
    assert record["full_bytes"] == 4 * record["budget_bytes"]
    assert done.err == "Wrote plan.json.\n"


@pytest.mark.parametrize("solver", ["hull", "greedy", "linear-program", "uniform"])
def test_every_solver_can_be_named(run, profile_file, solver):
    done = run("allocate", profile_file, "--budget", "50%", "--context", 200, "--solver", solver)
    assert f"found by {solver.title().replace('-', '')}" in done.out


def test_batch_and_tokens_reach_the_plan(run, profile_file, tmp_path):
    arguments = ("--budget", "50 tokens", "--context", 200, "--batch", 3, "--out", "three.json")
    assert run("allocate", profile_file, *arguments).code == 0
    plan = kvb.Plan.load(tmp_path / "three.json")
    assert plan.batch_size == 3
    assert plan.budget_bytes == 50 * 4 * plan.geometry.bytes_per_token * 3


def test_options_may_be_spelt_as_the_library_spells_them(run, profile_file, tmp_path):
    arguments = ("--budget", "25%", "--context-tokens", 200, "--batch-size", 2)
    assert run("allocate", profile_file, *arguments).code == 0
    plan = kvb.Plan.load(tmp_path / "plan.json")
    assert (plan.context_tokens, plan.batch_size) == (200, 2)
