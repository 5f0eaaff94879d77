"""What a check says in plain words."""

from dataclasses import replace

import pytest

import kvbudget as kvb
from kvbudget.report.trust import verdict


def test_never_checked_is_said_plainly() -> None:
    assert verdict(None).startswith("Never checked: ")


@pytest.mark.parametrize(("solved", "prompts"), [(0, 9), (9, 9), (10, 3)])
def test_few_plans_and_few_prompts_tell_nothing_good_or_bad(
    check: kvb.ProfileCheck, solved: int, prompts: int
) -> None:
    is_solved = (True,) * solved + (False,) * (20 - solved)
    for measured in (check.measured, check.measured[::-1]):
        few = replace(check, is_solved=is_solved, prompts=prompts, measured=measured)
        assert verdict(few).startswith(
            f"Checked on too little to tell: {solved} solved plan(s) on {prompts} prompt(s)."
        )


def test_plans_that_all_lose_the_same_have_no_order(check: kvb.ProfileCheck) -> None:
    for change in ({"predicted": (0.0,) * 20}, {"measured": (0.3,) * 20}):
        assert "no order to compare" in verdict(replace(check, **change))


def test_another_heuristic_in_the_check_is_named(check: kvb.ProfileCheck) -> None:
    other = replace(check, heuristic="key_norm()")
    assert verdict(other) == f"{verdict(check)} In the check key_norm() chose the tokens."


def test_a_good_check_holds(check: kvb.ProfileCheck) -> None:
    assert verdict(check).startswith("Checked, and it holds")


def test_the_size_may_be_wrong_and_the_order_right(check: kvb.ProfileCheck) -> None:
    far = replace(check, measured=tuple(3 * each for each in check.measured))
    assert "the order holds, but not the size" in verdict(far)


def test_random_plans_may_be_off_if_the_solved_ones_are_not(check: kvb.ProfileCheck) -> None:
    measured = tuple(
        each if solved else each * 2.5
        for each, solved in zip(check.measured, check.is_solved, strict=True)
    )
    off = replace(check, measured=measured)
    assert off.within_two < 0.9
    assert verdict(off).startswith("Checked, and it holds")


def test_a_wrong_order_is_no_help(check: kvb.ProfileCheck) -> None:
    wrong = replace(check, measured=check.measured[::-1])
    assert "does not hold" in verdict(wrong)
    assert "does not hold" in verdict(replace(wrong, in_nats=False))


def test_losses_without_a_unit_can_only_be_ordered(check: kvb.ProfileCheck) -> None:
    assert "their size says nothing" in verdict(replace(check, in_nats=False))
