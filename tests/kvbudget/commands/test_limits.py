"""Constraints and risks as they are typed."""

import pytest

from kvbudget.allocator import CVaR, Mean, Tokens, WorstSample
from kvbudget.allocator.constraints import (
    ByteLimit,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
    Protected,
    WholePages,
)
from kvbudget.commands.limits import Limits, read_risk, read_share


def test_nothing_asks_for_nothing():
    assert Limits().constraints == ()


def test_everything_asks_for_everything():
    limits = Limits(8, 90, [1, 0], True, 16, ["0=1GiB", "1=2GiB"], ["0-1=3GiB"], 4)
    assert limits.constraints == (
        LeastTokens(8),
        MostTokens(90),
        Protected(layers=(0, 1)),
        EqualInLayer(),
        WholePages(16),
        ByteLimit("1GiB", layers=(0,)),
        ByteLimit("2GiB", layers=(1,)),
        ByteLimit("3GiB", kv_heads=(0, 1)),
        MostCapacities(4),
    )


@pytest.mark.parametrize(
    ("text", "indices", "budget"),
    [
        ("0-3=2GiB", (0, 1, 2, 3), "2GiB"),
        ("7=25%", (7,), "25%"),
        ("0, 2 - 3 ,9=100", (0, 2, 3, 9), 100),
        ("3,1-4=64 tokens", (1, 2, 3, 4), Tokens(64)),
        ("5-5=1B", (5,), "1B"),
    ],
)
def test_shares_are_read(text, indices, budget):
    assert read_share("--layer-budget", text) == (indices, budget)


@pytest.mark.parametrize(
    "text",
    ["", "2GiB", "0-3", "=2GiB", "a=2GiB", "0-=2GiB", "-1=2GiB", "0-99999=1GiB", "0,,1=1GiB"],
)
def test_a_share_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match="`--head-budget` must read like 0-15=2GiB"):
        read_share("--head-budget", text)


def test_a_range_that_counts_down_is_refused():
    with pytest.raises(ValueError, match="`--layer-budget` must count up, but got 5-2"):
        read_share("--layer-budget", "5-2=1GiB")


@pytest.mark.parametrize(
    ("text", "risk"),
    [
        ("mean", Mean()),
        ("worst", WorstSample()),
        ("cvar", CVaR()),
        ("cvar:0.5", CVaR(0.5)),
        (" CVaR:0 ", CVaR(0.0)),
    ],
)
def test_risks_are_read(text, risk):
    assert read_risk(text) == risk


@pytest.mark.parametrize("text", ["", "best", "mean:0.5", "worst:", "cvar=0.9", "0.9"])
def test_an_unknown_risk_is_refused(text):
    with pytest.raises(ValueError, match=r"`--risk` must be mean, worst, or cvar:0\.9"):
        read_risk(text)


@pytest.mark.parametrize("text", ["cvar:", "cvar:1", "cvar:-0.1", "cvar:nan", "cvar:most"])
def test_a_level_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="`--risk` must have a share of at least 0 and below 1"):
        read_risk(text)
