"""Samples without anything to ask or to say are refused."""

import pytest

from kvbudget.evaluation import Question, Sample

ASKED = Question("Why?", "", ("rain", "wind"), 3)


@pytest.mark.parametrize("answers", [(), ("",), ("a", ""), (" \n",)])
def test_a_question_without_an_answer_is_refused(answers):
    with pytest.raises(ValueError, match="`answers` must hold texts"):
        Question("Why?", "", answers, 3)


def test_fewer_than_no_tokens_are_refused():
    with pytest.raises(ValueError, match="`max_new_tokens` must be at least 0, but got -1"):
        Question("Why?", "", ("a",), -1)


def test_a_sample_without_a_question_is_refused():
    with pytest.raises(ValueError, match="must have a question, but that of the task 'weather'"):
        Sample("It rained.", (), "weather")


def test_the_right_answer_in_one_piece_names_all_parts():
    assert ASKED.right == "rain, wind"
