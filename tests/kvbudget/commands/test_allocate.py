"""`kvbudget allocate` on files."""

import json

import pytest

import kvbudget as kvb
from kvbudget.allocator import Mean, WorstSample, constraints


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


@pytest.mark.parametrize("solver", ["hull", "greedy", "linear-program", "Linear_Program"])
def test_a_solver_can_be_named(run, profile_file, solver):
    done = run("allocate", profile_file, "--budget", "50%", "--context", 200, "--solver", solver)
    assert f"found by {solver.title().replace('-', '').replace('_', '')}" in done.out


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


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        (("--least-tokens", 50), lambda tokens: tokens.min() >= 50),
        (("--most-tokens", 90), lambda tokens: tokens.max() <= 90),
        (("--protect-layer", 0), lambda tokens: (tokens[0] == 200).all()),
        (("--equal-in-layer",), lambda tokens: (tokens[:, 0] == tokens[:, 1]).all()),
        (("--page-tokens", 16), lambda tokens: ((tokens % 16 == 0) | (tokens == 200)).all()),
    ],
)
def test_constraints_reach_the_plan(run, profile_file, tmp_path, options, holds):
    arguments = ("allocate", profile_file, "--budget", "60%", "--context", 200)
    assert run(*arguments).code == 0
    assert not holds(kvb.Plan.load(tmp_path / "plan.json").capacity_tokens)
    assert run(*arguments, *options).code == 0
    assert holds(kvb.Plan.load(tmp_path / "plan.json").capacity_tokens)


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the library, which refuses it."""
    calls = []

    def refuse(profile, **arguments):
        calls.append(arguments)
        raise ValueError("not now")

    monkeypatch.setattr(kvb, "allocate", refuse)
    return calls


def test_every_limit_and_the_risk_reach_the_library(run, profile_file, asked):
    arguments = ("--least-tokens", 9, "--most-tokens", 90, "--protect-layer", 1, "--equal-in-layer")
    more = ("--page-tokens", 4, "--layer-budget", "0=40%", "--head-budget", "1=1MiB")
    last = ("--most-capacities", 3, "--protect-layer", 0, "--batch", 3)
    plain = ("allocate", profile_file, "--budget", "50%", "--context", 200, "--risk", "worst")
    run(*plain, *arguments, *more, *last)
    (call,) = asked
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
    assert (call["risk"], call["batch_size"]) == (WorstSample(), 3)


def test_without_options_nothing_more_is_asked(run, profile_file, asked):
    run("allocate", profile_file, "--budget", "50%", "--context", 200)
    assert (asked[0]["constraints"], asked[0]["risk"]) == ((), Mean())
    assert asked[0]["solver"] == kvb.solvers.Hull()


def test_the_plan_is_not_written_over_its_profile(run, profile, tmp_path):
    profile.save(tmp_path / "mine.safetensors")
    before = (tmp_path / "mine.safetensors").read_bytes()
    options = ("--budget", "25%", "--context", 200, "--out", "mine.safetensors")
    done = run("allocate", "mine.safetensors", *options)
    assert done.code == 2
    assert "`--out` must not be the file of PROFILE, but got mine.safetensors." in done.err
    assert (tmp_path / "mine.safetensors").read_bytes() == before
