"""Which plans can be divided anew in a page, and why others cannot."""

from dataclasses import replace

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget import constraints as limits
from kvbudget.report.source import Source


def allocate(profile: kvb.Profile, *constraints: object, **more: object) -> kvb.Plan:
    return kvb.allocate(
        profile, budget="40%", context_tokens=500, constraints=tuple(constraints), **more
    )


def test_a_plan_with_its_losses_has_no_obstacle(plan: kvb.Plan, profile: kvb.Profile) -> None:
    assert Source.of(plan, None).obstacle is None
    assert Source.of(plan, profile).obstacle is None
    problem = Source.of(plan, None).problem
    assert problem is not None
    assert kvb.solve(problem, kvb.solvers.Hull()).plan == plan


@pytest.mark.parametrize(
    ("constraint", "name"),
    [
        (limits.ByteLimit("50%", layers=(0, 1)), "ByteLimit"),
        (limits.MostCapacities(3), "MostCapacities"),
    ],
)
def test_constraints_that_couple_caches_are_named(
    profile: kvb.Profile, constraint: object, name: str
) -> None:
    solver = kvb.solvers.MixedInteger()
    source = Source.of(allocate(profile, constraint, solver=solver), None)
    assert source.obstacle is not None
    assert f"honours {name}" in source.obstacle
    assert source.curves is not None


def test_a_risk_is_named(profile: kvb.Profile) -> None:
    plan = allocate(profile, risk=kvb.WorstSample())
    for each in (None, profile):
        obstacle = Source.of(plan, each).obstacle
        assert obstacle is not None
        assert "WorstSample" in obstacle


def test_a_profile_stands_in_for_missing_losses(plan: kvb.Plan, profile: kvb.Profile) -> None:
    old = replace(plan, curves=None)
    alone = Source.of(old, None).obstacle
    assert alone is not None
    assert "--profile" in alone
    source = Source.of(old, profile)
    assert source.obstacle is None
    assert source.curves == plan.curves


def test_a_profile_does_not_stand_in_where_constraints_are_only_words(
    profile: kvb.Profile,
) -> None:
    custom = limits.Custom(lambda share: [share[0, 0] >= 0])
    plan = allocate(profile, custom, solver=kvb.solvers.MixedInteger())
    obstacle = Source.of(plan, profile).obstacle
    assert obstacle is not None
    assert "a constraint that files cannot hold" in obstacle
    assert "--profile" not in obstacle


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "other"}, "`model`"),
        ({"heuristic": "key_norm", "measure": "ablation"}, "`heuristic` and `measure`"),
        ({"heuristic_settings": (("window", 8),)}, "`heuristic_settings`"),
    ],
)
def test_a_profile_of_something_else_is_refused(
    plan: kvb.Plan, profile: kvb.Profile, change: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match="must be the one that the plan was made from") as caught:
        Source.of(plan, replace(profile, **change))
    assert f"differ in {named}." in str(caught.value)


def test_a_profile_with_other_losses_or_levels_is_refused(
    plan: kvb.Plan, profile: kvb.Profile
) -> None:
    levels = np.array([*profile.kept_fraction[:-2], 0.81, 1.0])
    for other in (replace(profile, loss=2 * profile.loss), replace(profile, kept_fraction=levels)):
        with pytest.raises(ValueError, match="differ in `loss`"):
            Source.of(plan, other)


def test_a_check_made_later_is_found_in_the_profile(
    plan: kvb.Plan, profile: kvb.Profile, check: kvb.ProfileCheck
) -> None:
    assert Source.of(plan, profile).check is None
    assert Source.of(plan, replace(profile, check=check)).check == check
    other = replace(check, prompts=9)
    assert Source.of(replace(plan, check=other), replace(profile, check=check)).check == other
