"""What is said about the figures follows from them."""

import math

import pytest

ARM, OTHER, TWICE = "KeyDiff, Hull", "Tova, Hull", "KVZip, Hull"


@pytest.fixture
def found(peers):
    def make(*cells):
        return peers("findings").Findings(tuple(cells))

    return make


def test_a_plan_is_chosen_on_other_prompts_than_it_is_compared_on(found, cell):
    known = found(
        cell("choosing", ARM, 0.25, "books", 0.2),
        cell("choosing", OTHER, 0.25, "books", 0.1),
        cell("kvbudget", ARM, 0.25, "books", 0.01),
        cell("kvbudget", OTHER, 0.25, "books", 0.5),
    )
    assert known.chosen(0.25) == OTHER


def test_a_plan_that_reads_twice_is_chosen_only_where_that_is_allowed(found, cell):
    known = found(
        cell("choosing", ARM, 0.25, "books", 0.2), cell("choosing", TWICE, 0.25, "books", 0.1)
    )
    assert known.chosen(0.25) == TWICE
    assert known.chosen(0.25, read_once=True) == ARM


def test_the_mean_is_over_kinds_and_there_is_none_while_a_kind_is_missing(found, cell):
    cells = [
        cell("kvpress", "A", 0.25, "books", 0.1, 0.1, 0.1),
        cell("kvpress", "A", 0.25, "needles", 0.5),
        cell("kvpress", "B", 0.25, "books", 0.1),
    ]
    assert found(*cells).mean("kvpress", "A", 0.25) == pytest.approx(0.3)
    assert math.isnan(found(*cells).mean("kvpress", "B", 0.25))


def test_a_press_that_holds_more_than_was_asked_for_does_not_free(found, cell):
    known = found(
        cell("kvpress", "masks", 0.25, "books", 0.01, held=1.0),
        cell("kvpress", "frees", 0.25, "books", 0.3, held=0.2501),
    )
    assert known.best(0.25, freeing=True) == "frees"
    assert known.best(0.25, freeing=False) == "masks"


def test_presses_that_lose_less_than_the_chosen_plan_are_named(found, cell):
    known = found(
        cell("choosing", ARM, 0.25, "books", 0.2),
        cell("kvbudget", ARM, 0.25, "books", 0.2),
        cell("kvpress", "A", 0.25, "books", 0.1),
        cell("kvpress", "B", 0.25, "books", 0.3),
    )
    assert [each.name for each in known.lost_to(0.25, "books")] == ["A"]


def test_fewest_bytes_are_those_from_which_on_nothing_is_lost_any_more(found, cell):
    shares = {0.05: 10, 0.1: 100, 0.25: 90, 0.5: 96, 1.0: 100}
    cells = [
        cell(
            "kvpress", "A" if kept < 1 else "full cache", kept, "needles", 0.1, exact=e, answers=100
        )
        for kept, e in shares.items()
    ]
    assert found(*cells).fewest_bytes("kvpress", "A") == 0.5


def test_a_press_that_never_finds_enough_needs_the_full_cache(found, cell):
    whole = cell("kvpress", "full cache", 1.0, "needles", 0.0, exact=10, answers=10)
    never = cell("kvpress", "A", 0.5, "needles", 0.1, exact=2, answers=10)
    assert found(whole, never).fewest_bytes("kvpress", "A") == 1.0


def test_whether_a_press_frees_is_seen_at_the_main_shares(found, cell):
    known = found(
        cell("kvpress", "A", 0.25, "books", 0.1),
        cell("kvpress", "A", 0.005, "needles", 0.1, held=0.01),
    )
    assert known.frees("A")


def test_those_that_read_twice_are_known_on_both_sides(found):
    assert found().reads_twice("KVzip+")
    assert found().reads_twice(TWICE)
    assert not found().reads_twice("SnapKV")
    assert not found().reads_twice(ARM)
