"""Paired bootstraps against what is known without drawing."""

import numpy as np
import pytest


@pytest.fixture
def values():
    return np.random.default_rng(1).lognormal(sigma=2.0, size=20)


def test_a_constant_ratio_has_no_spread_however_much_prompts_differ(claims, values):
    found = claims("statistics").ratio_of_means([(3 * values, values)])
    assert found.value == pytest.approx(3)
    assert found.low == pytest.approx(3)
    assert found.high == pytest.approx(3)


def test_the_ratio_over_kinds_is_the_geometric_mean(claims, values):
    pairs = [(2 * values, values), (800 * values, 100 * values)]
    assert claims("statistics").ratio_of_means(pairs).value == pytest.approx(4)


def test_exchanging_the_two_inverts_ratio_and_interval(claims, values):
    other = values[::-1] + 0.5
    there = claims("statistics").ratio_of_means([(values, other)])
    back = claims("statistics").ratio_of_means([(other, values)])
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high)
    assert there.high == pytest.approx(1 / back.low)


def test_a_ratio_of_noise_includes_one_and_a_clear_one_does_not(claims):
    rng = np.random.default_rng(2)
    one, other = rng.lognormal(size=40), rng.lognormal(size=40)
    noise = claims("statistics").ratio_of_means([(one, other)])
    clear = claims("statistics").ratio_of_means([(0.2 * one, other)])
    assert noise.low < 1 < noise.high
    assert clear.high < 1


def test_the_interval_is_as_wide_as_theory_has_it(claims):
    # the log of a mean of many is nearly normal, with the relative standard error as its spread
    other = np.random.default_rng(3).uniform(1, 2, size=400)
    one = np.ones(400)
    found = claims("statistics").ratio_of_means([(other, one)])
    error = other.std() / other.mean() / np.sqrt(400)
    assert np.log(found.high / found.low) == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_no_divergence_at_all_gives_a_finite_ratio(claims):
    found = claims("statistics").ratio_of_means([(np.zeros(5), np.ones(5))])
    assert 0 < found.value < 1e-5


def test_shares_are_of_questions_and_not_of_prompts(claims):
    one, other = np.array([4.0, 0.0]), np.array([0.0, 0.0])
    asked = np.array([4.0, 12.0])
    found = claims("statistics").difference_of_shares([(one, other)], [asked])
    assert found.value == pytest.approx(0.25)
    assert found.low == 0
    assert found.high == pytest.approx(1)


def test_the_same_seed_gives_the_same_interval(claims, values):
    draw = claims("statistics").ratio_of_means
    assert draw([(values, values[::-1])]) == draw([(values, values[::-1])])
    assert draw([(values, values[::-1])], seed=1) != draw([(values, values[::-1])])
