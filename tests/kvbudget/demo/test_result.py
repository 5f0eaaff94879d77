"""Rows sum up what was seen."""

import pytest

import kvbudget as kvb
from kvbudget.demo.result import FULL, Row, hull_advantage, make_row
from kvbudget.demo.trying import Tally


def row(budget, solver, divergence):
    return Row(budget, solver, 100, 90, 90, 1.0, 0.5, 0.5, divergence, 0.5, 4, 10.0)


def test_a_row_holds_means_medians_and_the_certificate(profile):
    plan = kvb.allocate(profile, budget="25%", context_tokens=200)
    tally = Tally([0.1, 0.3], ["1", "2"], [True, False], 640, [5.0, 1.0, 6.0])
    made = make_row("25%", plan, 9999, tally)
    assert made.divergence == pytest.approx(0.2)
    assert made.needle_accuracy == 0.5
    assert made.tokens_per_second == 5.0
    assert (made.predicted_loss, made.bound, made.gap) == (plan.loss, plan.bound, plan.gap)
    assert (made.budget_bytes, made.plan_bytes) == (plan.budget_bytes, plan.used_bytes)


def test_the_full_cache_is_allowed_everything():
    made = make_row("100%", None, 9999, Tally([0.0], ["1"], [True], 9000, [5.0]))
    assert (made.solver, made.budget_bytes, made.predicted_loss) == (FULL, 9999, 0.0)


def test_the_advantage_is_the_ratio_at_each_budget():
    rows = [row("100%", FULL, 0.0), row("10%", "Uniform", 0.6), row("10%", "Hull", 0.2)]
    rows += [row("25%", "Uniform", 0.1), row("25%", "Hull", 0.2), row("50%", "Hull", 0.2)]
    assert hull_advantage(rows) == {"10%": pytest.approx(3.0), "25%": pytest.approx(0.5)}
