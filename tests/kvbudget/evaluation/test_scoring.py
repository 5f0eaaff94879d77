"""Answers are worth what was agreed."""

import pytest

from kvbudget.evaluation import any_found, begins_exactly, share_found, share_in_place


@pytest.mark.parametrize(
    ("said", "answers", "share"),
    [
        ("The numbers are 123 and 45.", ("123", "45"), 1.0),
        ("123 only", ("123", "45"), 0.5),
        ("1234 and 445", ("123", "45"), 0.0),
        ("it was in PARIS", ("Paris",), 1.0),
        ("parisian", ("Paris",), 1.0),
        ("a.b", ("a+b",), 0.0),
        ("", ("x", "y"), 0.0),
        ("said at once", (" at ",), 1.0),
        ("x9", ("9",), 1.0),
    ],
)
def test_the_share_of_answers_that_occur(said, answers, share):
    assert share_found(said, answers) == share


@pytest.mark.parametrize(
    ("said", "worth"), [("the capital, Paris", 1.0), ("in FRANCE", 1.0), ("Rome", 0.0)]
)
def test_one_of_several_answers_is_enough(said, worth):
    assert any_found(said, ("Paris", "France")) == worth


@pytest.mark.parametrize(
    ("said", "worth"),
    [
        ("123", 1.0),
        (" 123\nQuestion", 1.0),
        ('123", ', 1.0),
        ("1234", 0.0),
        ("123a", 0.0),
        ("it is 123", 0.0),
        ("12", 0.0),
        ("", 0.0),
    ],
)
def test_an_exact_answer_begins_at_once_and_ends_with_its_word(said, worth):
    assert begins_exactly(said, ("123",)) == worth


@pytest.mark.parametrize(
    ("said", "share"),
    [("a b c d", 1.0), (" a b x d e f", 0.75), ("b c d", 0.0), ("a", 0.25), ("", 0.0)],
)
def test_words_count_in_their_places(said, share):
    assert share_in_place(said, ("a", "b", "c", "d")) == share
