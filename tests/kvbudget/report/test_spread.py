"""The band of single prompts along the path."""

from dataclasses import replace

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget.report.spread import spread_of


def test_the_band_is_what_single_prompts_lose_with_the_plans_of_the_path(
    profile: kvb.Profile,
) -> None:
    problem = kvb.Problem.from_profile(profile, budget="100%", context_tokens=1000)
    spread = spread_of(problem, profile)
    assert spread is not None
    assert spread.prompts == 4
    path, full = kvb.solve_path(problem), profile.geometry.full_bytes(1000)
    rows = list(zip(spread.kept_fraction, spread.least, spread.most, strict=True))
    for share, least, most in rows[::9]:
        levels = path.levels(round(share * full)).reshape(6, 4, 1)
        totals = np.take_along_axis(profile.sample_loss, levels[None], axis=3).sum(axis=(1, 2, 3))
        assert least == pytest.approx(totals.min())
        assert most == pytest.approx(totals.max())


def test_the_band_holds_the_mean_and_spans_the_path(profile: kvb.Profile) -> None:
    problem = kvb.Problem.from_profile(profile, budget="100%", context_tokens=1000)
    spread, path = spread_of(problem, profile), kvb.solve_path(problem)
    assert spread is not None
    ends = [spread.kept_fraction[0], spread.kept_fraction[-1]]
    assert ends == pytest.approx([path.kept_fraction[0], path.kept_fraction[-1]])
    assert 20 < len(spread.kept_fraction) <= 80
    mean = np.interp(spread.kept_fraction, path.kept_fraction, path.loss)
    assert (np.array(spread.least) <= mean * 1.01).all()
    assert (np.array(spread.most) >= mean * 0.99).all()


def test_one_prompt_has_no_spread(profile: kvb.Profile) -> None:
    single = replace(profile, sample_loss=profile.sample_loss[:1])
    problem = kvb.Problem.from_profile(single, budget="100%", context_tokens=1000)
    assert spread_of(problem, single) is None
