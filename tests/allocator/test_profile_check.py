"""The figures of a check, against written-out ones, and its way through files and plans."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from kvbudget.allocator import Path, Plan, Profile, ProfileCheck, allocate, compare, solve_path
from kvbudget.allocator.solvers import Hull

losses = st.floats(0.0, 1e3, allow_subnormal=False)


def make_check(predicted, measured) -> ProfileCheck:
    """A check of plans that keep 10 % to 60 %, every other one solved."""
    count = len(predicted)
    return ProfileCheck(
        predicted=tuple(predicted),
        measured=tuple(measured),
        kept_fraction=tuple(np.linspace(0.1, 0.6, count)),
        is_solved=tuple(index % 2 == 1 for index in range(count)),
        prompts=3,
    )


@pytest.fixture
def check():
    return make_check([1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 8.0, 64.0])


@pytest.fixture
def checked(profile: Profile, check) -> Profile:
    return replace(profile, check=check)


def test_figures_of_a_small_example(check):
    assert check.ratio.tolist() == [1.0, 2.0, 0.5, 0.125]
    assert check.worst == 0.125
    assert check.within_two == 0.75
    assert check.solved_within_two == 0.5  # 2.0 is within, 0.125 is not
    assert check.spearman == pytest.approx(
        spearmanr([1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 8.0, 64.0]).statistic
    )


@given(st.floats(0.1, 10.0), st.floats(0.2, 3.0))
def test_slope_is_the_exponent_of_a_power_law(factor, power):
    predicted = np.geomspace(1e-3, 5.0, 7)
    assert make_check(predicted, factor * predicted**power).slope == pytest.approx(power)


@given(st.lists(st.tuples(losses, losses), min_size=2, max_size=12))
def test_figures_are_finite_or_say_infinitely_far(pairs):
    check = make_check(*zip(*pairs, strict=True))
    assert -1 <= check.spearman <= 1
    assert math.isfinite(check.slope)
    assert 0 <= check.within_two <= 1
    far = [abs(math.log(r)) if 0 < r < math.inf else math.inf for r in check.ratio]
    worst = check.worst
    assert (abs(math.log(worst)) if 0 < worst < math.inf else math.inf) == max(far)
    assert str(check)


def test_nothing_lost_where_nothing_was_predicted_is_right(check):
    assert make_check([0.0, 0.0, 1.0], [0.0, 1.0, 0.0]).ratio.tolist() == [1.0, 0.0, math.inf]


@pytest.mark.parametrize("change", [{}, {"in_nats": False}, {"heuristic": "tova()"}])
def test_it_goes_through_json(check, change):
    changed = replace(check, **change)
    assert ProfileCheck.from_json(changed.to_json()) == changed


def test_losses_in_another_unit_are_compared_by_their_order_alone(check):
    text = str(replace(check, in_nats=False))
    assert "rank correlation 0.949" in text
    assert "another unit" in text
    assert "worst" not in text


def test_solved_plans_are_spoken_of_where_there_were_some(check):
    plans = len(check.predicted)
    assert "solved" in str(replace(check, is_solved=(True,) * plans))
    assert "solved" not in str(replace(check, is_solved=(False,) * plans))


def test_another_element_type_has_not_been_checked(checked):
    assert checked.with_dtype("bfloat16").check is None


def test_it_goes_with_the_profile_into_plans_paths_and_files(checked, tmp_path):
    checked.save(tmp_path / "p.safetensors")
    loaded = Profile.load(tmp_path / "p.safetensors")
    assert loaded == checked
    assert loaded.check == checked.check
    plan = allocate(loaded, budget="50%", context_tokens=400, solver=Hull())
    assert plan.check == checked.check
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").check == checked.check
    assert plan.at(300).check == checked.check
    path = solve_path(loaded, context_tokens=400)
    path.save(tmp_path / "path.safetensors")
    again = Path.load(tmp_path / "path.safetensors")
    assert again.plan("50%").check == checked.check


def test_profile_and_plan_show_it(checked):
    plan = allocate(checked, budget="50%", context_tokens=400)
    for value in (checked, plan):
        assert f"  checked   {checked.check}" in str(value)
        assert "rank correlation 0.949" in str(value)
    comparison = compare(checked, budgets=["50%"], solvers=[Hull()], context_tokens=400)
    assert str(comparison).endswith(f"Losses checked: {checked.check}.")
    bare = allocate(replace(checked, check=None), budget="50%", context_tokens=400)
    assert "checked   never" in str(bare)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": (1.0, -2.0, 4.0, 8.0)}, "`predicted` must be at least 0"),
        ({"measured": (1.0, math.nan, 4.0, 8.0)}, "`measured`"),
        ({"measured": (1.0, 2.0)}, "the same 2 plans or more"),
        ({"prompts": 0}, "`prompts` must be at least 1"),
    ],
)
def test_bad_fields_are_refused(check, change, message):
    with pytest.raises(ValueError, match=message):
        replace(check, **change)


def test_one_plan_is_no_check():
    with pytest.raises(ValueError, match="2 plans or more"):
        make_check([1.0], [1.0])


def test_a_profile_takes_nothing_else_for_a_check(profile):
    with pytest.raises(TypeError, match="`check` must be a ProfileCheck or None"):
        replace(profile, check="fine")
