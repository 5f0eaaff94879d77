"""Every claim can be run and read as it is written."""

import pytest


def arms_with_kinds(claim):
    return {(arm.name, kind) for arm, kinds in claim.arms for kind in kinds}


def needed(test, full_tests):
    """Arms and kinds that a test looks at."""
    arms = (test.arm,) if isinstance(test, full_tests) else (test.one, test.other)
    return {(arm.name, kind) for arm in arms for kind in test.kinds}


def test_every_test_looks_at_what_its_claim_runs(claims):
    for claim in claims("everything").CLAIMS:
        assert claim.tests
        for test in (*claim.tests, *claim.beside, claim.ours):
            assert needed(test, claims("claim").Holds) <= arms_with_kinds(claim), claim.paper


def test_an_arms_name_says_all_that_it_is(claims):
    found = {}
    for claim in claims("everything").CLAIMS:
        for arm, kinds in claim.arms:
            assert set(kinds) <= set(claims("kinds").KINDS)
            assert found.setdefault(arm.name, arm) == arm


def test_every_arm_is_run_once_for_each_kind(claims):
    every = claims("everything").CLAIMS
    wanted = [(arm.name, kind) for arm, kind in claims("running").wanted(every)]
    assert len(set(wanted)) == len(wanted)
    assert set(wanted) == set().union(*map(arms_with_kinds, every))


@pytest.mark.parametrize("field", ["paper", "title", "says", "tried", "short", "why", "untested"])
def test_no_claim_leaves_anything_out(claims, field):
    assert all(getattr(claim, field).strip() for claim in claims("everything").CLAIMS)


def test_every_claim_shows_ours_beside_the_papers(claims):
    for claim in claims("everything").CLAIMS:
        assert claim.ours.one.named == "solved for divergence", claim.paper
        assert claim.ours.other.named != "solved for divergence"
        assert claim.ours.one.kept == claim.ours.other.kept


def test_every_claim_names_a_paper_on_arxiv(claims):
    links = [claim.link for claim in claims("everything").CLAIMS]
    assert len(set(links)) == len(links) == 9
    assert all(link.startswith("https://arxiv.org/abs/") for link in links)
