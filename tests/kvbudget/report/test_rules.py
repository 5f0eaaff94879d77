"""Constraints as rules of the page, and as options of the command line."""

import shlex

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget import cli
from kvbudget import constraints as limits
from kvbudget.report.rules import NO_LIMIT, Rules, command_options, rules_of


def rules(profile: kvb.Profile, *constraints: object) -> Rules:
    return rules_of(
        kvb.Problem.from_profile(
            profile, budget="50%", context_tokens=1000, constraints=tuple(constraints)
        )
    )


def test_without_constraints_there_are_no_rules(profile: kvb.Profile) -> None:
    assert rules(profile) == Rules()


def test_the_strictest_of_several_limits_holds(profile: kvb.Profile) -> None:
    least = rules(profile, limits.LeastTokens(10), limits.LeastTokens(30, layers=(1,)))
    assert least.least_tokens == [10] * 4 + [30] * 4 + [10] * 16
    most = rules(profile, limits.MostTokens(90, kv_heads=(0,)), limits.MostTokens(70, layers=(0,)))
    assert most.most_tokens is not None
    assert most.most_tokens[:8] == [70, 70, 70, 70, 90, NO_LIMIT, NO_LIMIT, NO_LIMIT]


def test_protected_caches_are_those_that_any_constraint_names(profile: kvb.Profile) -> None:
    found = rules(profile, limits.Protected(layers=(5,)), limits.Protected(kv_heads=(1,)))
    wanted = np.zeros((6, 4), dtype=bool)
    wanted[5], wanted[:, 1] = True, True
    assert found.protected == wanted.ravel().tolist()


def test_pages_and_groups_are_numbers(profile: kvb.Profile) -> None:
    found = rules(profile, limits.WholePages(16), limits.WholePages(24), limits.EqualInLayer())
    assert found.page_tokens == 48
    assert found.group == np.repeat(np.arange(6), 4).tolist()


@pytest.mark.parametrize(
    "constraints",
    [
        (),
        (limits.LeastTokens(40),),
        (limits.MostTokens(600), limits.WholePages(16)),
        (limits.Protected(layers=(0, 3)), limits.EqualInLayer()),
    ],
)
def test_the_options_ask_the_command_for_these_constraints(
    profile: kvb.Profile,
    constraints: tuple[object, ...],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    profile.save("profile.safetensors")
    options = command_options(constraints)
    command = f"kvbudget allocate profile.safetensors{options} --budget 70% --context 1000"
    monkeypatch.setattr("sys.argv", shlex.split(command))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    wanted = kvb.allocate(profile, budget="70%", context_tokens=1000, constraints=constraints)
    assert set(kvb.Plan.load("plan.json").curves.constraints) == set(constraints)
    assert (kvb.Plan.load("plan.json").capacity_tokens == wanted.capacity_tokens).all()


@pytest.mark.parametrize(
    "constraint",
    [
        limits.LeastTokens(40, layers=(0,)),
        limits.MostTokens(40, kv_heads=(0,)),
        limits.Protected(kv_heads=(1,)),
        limits.Protected(layers=(0,), kv_heads=(1,)),
        limits.EqualInLayer(layers=(1,)),
    ],
)
def test_what_no_option_can_say_has_no_command(constraint: object) -> None:
    assert command_options((limits.WholePages(8), constraint)) is None
