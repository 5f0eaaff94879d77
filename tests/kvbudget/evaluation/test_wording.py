"""Contexts and questions become the tokens that the model should read."""

from dataclasses import replace

import pytest

import kvbudget as kvb
from kvbudget.evaluation import Form, Question, Sample, Wording, draw, tasks

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SAMPLE = Sample("It rained.", (Question(" Why?", "Because ", ("clouds",), 5),), "weather")


@pytest.fixture
def tokenizer():
    return kvb.reference_model()[1]


def test_without_a_template_a_line_ends_between_question_and_answer(tokenizer):
    wording = Wording.of(tokenizer)
    assert tokenizer.decode(wording.context_ids(SAMPLE)) == "It rained."
    asked = wording.question_ids(SAMPLE, SAMPLE.questions[0])
    assert tokenizer.decode(asked) == " Why?\nBecause "


def test_a_chat_template_stands_around_context_and_question(tokenizer):
    tokenizer.chat_template = TEMPLATE
    wording = Wording.of(tokenizer)
    whole = wording.context_ids(SAMPLE) + wording.question_ids(SAMPLE, SAMPLE.questions[0])
    assert tokenizer.decode(whole) == "<user>It rained. Why?</s><assistant>Because "
    plain = Wording.of(tokenizer, chat=False)
    assert tokenizer.decode(plain.context_ids(SAMPLE)) == "It rained."


def test_a_template_that_hides_the_message_is_refused(tokenizer):
    tokenizer.chat_template = "<assistant>"
    with pytest.raises(ValueError, match="must show a user's message"):
        Wording.of(tokenizer)


def test_a_text_that_goes_on_has_no_template_and_no_question(tokenizer):
    tokenizer.chat_template = TEMPLATE
    wording = Wording.of(tokenizer)
    question = Question("", "", (" all day",), 0)
    goes_on = Sample("It rained", (question,), "x", form=Form(is_text=True))
    assert tokenizer.decode(wording.context_ids(goes_on)) == "It rained"
    assert wording.question_ids(goes_on, goes_on.questions[0]) == []
    assert tokenizer.decode(wording.answer_ids(goes_on, goes_on.questions[0])) == " all day"


def test_answer_tokens_are_those_behind_the_question(tokenizer):
    wording = Wording.of(tokenizer)
    question = Question(" Why?", "Because", (" clouds", "wind"), 5)
    whole = wording.encode(" Why?\nBecause clouds, wind")
    answer = wording.answer_ids(SAMPLE, question)
    assert wording.question_ids(SAMPLE, question) + answer == whole


def test_a_space_before_the_answer_stays_with_the_question(tokenizer):
    """Encoded together the space would be a part of the answer's first token."""
    wording = Wording.of(tokenizer)
    question = SAMPLE.questions[0]
    assert wording.encode(" Why?\nBecause clouds") != [
        *wording.question_ids(SAMPLE, question),
        *wording.encode("clouds"),
    ]
    assert wording.answer_ids(SAMPLE, question) == wording.encode("clouds")


def test_a_tokens_start_of_text_comes_first(tokenizer):
    wording = replace(Wording.of(tokenizer), start=(7,))
    assert wording.context_ids(SAMPLE)[0] == 7
    assert wording.length(SAMPLE) == Wording.of(tokenizer).length(SAMPLE) + 1


def test_questions_of_one_context_share_its_room_but_turns_do_not(room_of):
    wording = room_of(500).wording
    sample = draw(tasks.MultiTurn(), room_of(500), 0)
    apart = replace(sample, form=Form())
    turns = [
        len(wording.question_ids(sample, q))
        + max(q.max_new_tokens, len(wording.answer_ids(sample, q)))
        for q in sample.questions
    ]
    context = len(wording.context_ids(sample))
    assert wording.length(sample) == context + sum(turns)
    assert wording.length(apart) == context + max(turns)


@pytest.fixture
def starting(tokenizer):
    """A tokenizer that puts a token before every text and one behind it."""
    from tokenizers.processors import TemplateProcessing

    first, last = tokenizer.convert_ids_to_tokens([7, 8])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, 7), (last, 8)]
    )
    assert tokenizer("It")["input_ids"][0::2] == [7, 8]
    return tokenizer


def test_only_a_context_has_a_start_and_nothing_has_an_end(starting):
    wording = Wording.of(starting)
    assert wording.start == (7,)
    assert wording.context_ids(SAMPLE) == [7, *wording.encode("It rained.")]
    asked = SAMPLE.questions[0]
    ids = [*wording.question_ids(SAMPLE, asked), *wording.answer_ids(SAMPLE, asked)]
    assert 7 not in ids
    assert 8 not in ids


def test_a_template_brings_the_start_along_but_prose_has_its_own(starting):
    starting.chat_template = TEMPLATE
    wording = Wording.of(starting)
    assert wording.context_ids(SAMPLE) == wording.encode("<user>It rained.")
    goes_on = Sample("It rained", (Question("", "", (" on",), 0),), "x", form=Form(is_text=True))
    assert wording.context_ids(goes_on) == [7, *wording.encode("It rained")]


def test_a_right_answer_is_written_as_its_form_says(tokenizer):
    wording = Wording.of(tokenizer)
    listed = Sample("list: a b c d", (Question("", "again: a b", ("c", "d"), 5),), "copying")
    (question,) = listed.questions
    asked = wording.question_ids(listed, question)
    joined = replace(listed, form=Form(lead=" ", joined_by=" "))
    for sample, text in ((listed, "\nagain: a bc, d"), (joined, "\nagain: a b c d")):
        assert tokenizer.decode(asked + wording.answer_ids(sample, question)) == text
