"""When a test holds and what the verdict is."""

from math import log

import pytest


@pytest.fixture
def arm(claims):
    """Makes arms that are never run."""

    def make(name):
        return claims("arms").Arm(claims("tokens").H2O, name, claims("divisions").Equal(), 30)

    return make


@pytest.fixture
def claim(claims, arm):
    """Makes a claim of some tests."""

    def make(*tests):
        words = dict.fromkeys(
            ("paper", "title", "link", "says", "tried", "short", "why", "untested"), "w"
        )
        return claims("claim").Claim(**words, arms=(), tests=tests, ours=tests[0])

    return make


def records_of(*records):
    return {(each.arm, each.kind): each for each in records}


def test_a_rule_beats_another_only_if_the_whole_interval_is_below_one(claims, arm, record):
    beats = claims("claim").Beats(arm("a"), arm("b"), ("text",), "here")
    one, other = arm("a").name, arm("b").name
    clear = records_of(record(one, "text", [1.0, 2, 3]), record(other, "text", [2.0, 4, 6]))
    unclear = records_of(record(one, "text", [1.0, 5, 2]), record(other, "text", [4.0, 1, 4]))
    opposite = records_of(record(one, "text", [2.0, 4, 6]), record(other, "text", [1.0, 2, 3]))
    assert beats.look(clear).holds
    assert "x 0.5 [0.5, 0.5]: less" in beats.look(clear).text
    assert not beats.look(unclear).holds
    assert "no clear difference" in beats.look(unclear).text
    assert not beats.look(opposite).holds
    assert "x 2 [2, 2]: more" in beats.look(opposite).text


def test_a_comparison_tells_right_answers_in_points_where_there_are_questions(claims, arm, record):
    one, other = arm("a").name, arm("b").name
    beats = claims("claim").Beats(arm("a"), arm("b"), ("needles",), "here")
    found = records_of(
        record(one, "needles", [1.0, 1], [2, 2]), record(other, "needles", [2.0, 2], [1, 1])
    )
    assert "right answers +50 points [+50, +50]" in beats.look(found).text


@pytest.mark.parametrize(("right", "holds"), [(19, True), (18, False)])
def test_answers_hold_at_nineteen_in_twenty_of_the_full_cache(claims, arm, record, right, holds):
    hits = [1] * right + [0] * (20 - right)
    found = records_of(
        record(arm("a").name, "needles", [0.1] * 20, hits),
        record("full cache", "needles", [0.0] * 20, [1] * 20),
    )
    assert claims("claim").Holds(arm("a"), ("needles",), "here").look(found).holds is holds


@pytest.mark.parametrize(("likelier", "holds"), [(0.951, True), (0.949, False)])
def test_text_holds_at_nineteen_twentieths_of_the_likelihood(claims, arm, record, likelier, holds):
    found = records_of(
        record(arm("a").name, "text", [-log(likelier)] * 3),
        record("full cache", "text", [0.0] * 3),
    )
    assert claims("claim").Holds(arm("a"), ("text",), "here").look(found).holds is holds


def test_quality_holds_only_if_it_does_on_every_kind(claims, arm, record):
    name = arm("a").name
    found = records_of(
        record(name, "text", [0.001]),
        record("full cache", "text", [0.0]),
        record(name, "needles", [0.001], [0]),
        record("full cache", "needles", [0.0], [2]),
    )
    assert claims("claim").Holds(arm("a"), ("text",), "here").look(found).holds
    assert not claims("claim").Holds(arm("a"), ("text", "needles"), "here").look(found).holds


def test_the_verdict_counts_the_tests(claims, claim, arm, record):
    one, other = arm("a").name, arm("b").name
    found = records_of(record(one, "text", [1.0, 1]), record(other, "text", [2.0, 2]))
    yes = claims("claim").Beats(arm("a"), arm("b"), ("text",), "here")
    no = claims("claim").Beats(arm("b"), arm("a"), ("text",), "here")
    verdict = claims("claim").Verdict
    assert claim(yes, yes).verdict(found) is verdict.REPRODUCED
    assert claim(yes, no).verdict(found) is verdict.PARTLY
    assert claim(no, no).verdict(found) is verdict.NOT
