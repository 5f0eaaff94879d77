"""What is read and said equals what the model's own generate gives; bytes are those held."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch

import kvbudget as kvb
from kvbudget.evaluation import Form, Question, Sample, Wording, draw, tasks
from kvbudget.evaluation.caches import FullCache, PlannedCache
from kvbudget.evaluation.reading import Reader

TOKENS = 220


@pytest.fixture(scope="module")
def reader(shipped, wording):
    return Reader(*shipped, wording)


@pytest.fixture(scope="module")
def knowing(shipped, wording):
    """Reads the question together with the context."""
    return Reader(*shipped, wording, question_known=True)


@pytest.fixture(scope="module")
def several(room_of):
    """Two questions about one context."""
    return draw(tasks.MultiQueryNeedle(needles=2), room_of(TOKENS), 1)


@pytest.fixture(scope="module")
def turns(room_of):
    """A conversation."""
    return draw(tasks.MultiTurn(turns=2), room_of(TOKENS), 2)


@pytest.fixture(scope="module")
def prose(room_of):
    return draw(tasks.Prose(), room_of(TOKENS), 3)


def generated(reader, ids, question, cache=None):
    """What transformers generates behind some tokens."""
    prompt = torch.tensor([ids])
    output = reader.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        past_key_values=cache,
        max_new_tokens=question.max_new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return reader.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)


def first_line(text):
    return text.lstrip().split("\n")[0]


def test_the_full_cache_answers_what_generate_answers(reader, several):
    said = reader.read(several, FullCache()).said
    context = reader.wording.context_ids(several)
    for answer, question in zip(said, several.questions, strict=True):
        ids = context + reader.wording.question_ids(several, question)
        assert first_line(answer) == first_line(generated(reader, ids, question))


def test_answers_end_with_their_line_only_if_the_form_says_so(reader, several):
    on = replace(several, form=Form())
    said = reader.read(on, FullCache()).said
    context = reader.wording.context_ids(several)
    for answer, question in zip(said, several.questions, strict=True):
        ids = context + reader.wording.question_ids(several, question)
        assert answer == generated(reader, ids, question)


def test_a_question_unknown_at_eviction_is_read_by_a_cache_that_was_cut(reader, several, plan_of):
    plan = plan_of("30%", TOKENS)
    said = reader.read(several, PlannedCache(plan)).said
    context = reader.wording.context_ids(several)
    for answer, question in zip(said, several.questions, strict=True):
        asked = reader.wording.question_ids(several, question)
        with kvb.budgeted(reader.model, plan) as cache, torch.no_grad():
            reader.model(torch.tensor([context]), past_key_values=cache)
            whole = generated(reader, context + asked, question, cache)
        assert first_line(answer) == first_line(whole)


def test_a_known_question_is_read_with_the_context(knowing, several, plan_of):
    plan = plan_of("20%", TOKENS)
    said = knowing.read(several, PlannedCache(plan)).said
    context = knowing.wording.context_ids(several)
    for answer, question in zip(said, several.questions, strict=True):
        ids = context + knowing.wording.question_ids(several, question)
        with kvb.budgeted(knowing.model, plan):
            whole = generated(knowing, ids, question)
        assert first_line(answer) == first_line(whole)


def test_known_questions_and_unknown_ones_are_not_the_same(reader, knowing, several, plan_of):
    planned = PlannedCache(plan_of("10%", TOKENS))
    one, other = (each.read(several, planned).logits for each in (reader, knowing))
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_no_question_sees_the_ones_before_it(reader, several, plan_of):
    planned = PlannedCache(plan_of("20%", TOKENS))
    there = reader.read(several, planned)
    back = reader.read(replace(several, questions=several.questions[::-1]), planned)
    assert there.said == back.said[::-1]
    for one, other in zip(there.logits, back.logits[::-1], strict=True):
        assert torch.equal(one, other)


def test_a_turn_sees_the_right_answers_before_it(reader, turns):
    found = reader.read(turns, FullCache())
    ids = reader.wording.context_ids(turns)
    for number, question in enumerate(turns.questions):
        ids = ids + reader.wording.question_ids(turns, question)
        answer = reader.wording.answer_ids(turns, question)
        ids = ids + answer
        with torch.no_grad():
            expected = reader.model(torch.tensor([ids])).logits[0, -len(answer) - 1 :]
        torch.testing.assert_close(found.logits[number], expected, atol=1e-4, rtol=1e-4)


def test_logits_are_those_of_one_plain_forward(reader, prose, several):
    for sample in (prose, several):
        found = reader.read(sample, FullCache())
        for logits, question in zip(found.logits, sample.questions, strict=True):
            answer = reader.wording.answer_ids(sample, question)
            ids = [
                *reader.wording.context_ids(sample),
                *reader.wording.question_ids(sample, question),
                *answer,
            ]
            with torch.no_grad():
                expected = reader.model(torch.tensor([ids])).logits[0, -len(answer) - 1 :]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_the_right_answer_is_read_as_if_it_was_generated(reader, several, plan_of):
    plan = plan_of("15%", TOKENS)
    found = reader.read(several, PlannedCache(plan))
    context = reader.wording.context_ids(several)
    blocks_differ = False
    for logits, question in zip(found.logits, several.questions, strict=True):
        asked = reader.wording.question_ids(several, question)
        answer = reader.wording.answer_ids(several, question)
        steps = [context, asked, *([token] for token in answer)]
        told = [read_in(reader, plan, blocks) for blocks in (steps, [context, asked, answer])]
        one_by_one, at_once = (each[-len(answer) - 1 :] for each in told)
        torch.testing.assert_close(logits, one_by_one, atol=1e-4, rtol=1e-4)
        blocks_differ |= not torch.allclose(one_by_one, at_once, atol=1e-2)
    assert blocks_differ, "the plan must evict between the tokens of an answer"


def read_in(reader, plan, blocks):
    """Logits behind all tokens, read in these blocks."""
    with kvb.budgeted(reader.model, plan) as cache, torch.no_grad():
        read = [reader.model(torch.tensor([ids]), past_key_values=cache).logits for ids in blocks]
    return torch.cat(read, 1)[0]


@pytest.mark.parametrize("known", [False, True])
def test_a_plan_that_keeps_everything_reads_like_the_full_cache(
    reader, knowing, several, turns, prose, plan_of, known
):
    chosen = knowing if known else reader
    planned = PlannedCache(plan_of("100%", TOKENS))
    for sample in (several, turns, prose):
        full, kept = chosen.read(sample, FullCache()), chosen.read(sample, planned)
        assert full.said == kept.said
        for one, other in zip(full.logits, kept.logits, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_bytes_held_are_those_of_the_longest_sequence_and_of_the_plan(reader, turns, plan_of):
    geometry = kvb.geometry_of(reader.model)
    tokens = len(reader.wording.context_ids(turns)) + sum(
        len(reader.wording.question_ids(turns, q)) + len(reader.wording.answer_ids(turns, q))
        for q in turns.questions
    )
    full = reader.read(turns, FullCache())
    # what was generated in a fork may have been longer than the right answer
    assert geometry.full_bytes(tokens) <= full.held_bytes <= geometry.full_bytes(TOKENS)
    plan = plan_of("25%", TOKENS)
    assert reader.read(turns, PlannedCache(plan)).held_bytes == plan.used_bytes


def test_times_are_of_each_reading_and_of_each_token_after_the_first(reader, knowing, several):
    found, known = (each.read(several, FullCache()) for each in (reader, knowing))
    assert len(found.prefill_seconds) == 1
    assert len(known.prefill_seconds) == 2
    assert all(seconds > 0 for seconds in found.prefill_seconds + found.token_seconds)
    new = [len(reader.wording.encode(said)) for said in found.said]
    assert len(found.token_seconds) == sum(new) - len(new)


def test_the_peak_of_a_small_plan_lies_below_the_full_cache_and_above_its_budget(
    reader, room_of, plan_of
):
    sample = draw(tasks.SingleNeedle(), room_of(1024), 0)
    plan = plan_of("10%", 1024)
    full = reader.peak_bytes(sample, FullCache())
    cut = reader.peak_bytes(sample, PlannedCache(plan))
    assert full > kvb.geometry_of(reader.model).full_bytes(900)
    assert plan.budget_bytes < cut < full


def test_a_reading_leaves_the_model_as_it_was(reader, several, plan_of):
    ids = torch.tensor([reader.wording.context_ids(several)])
    with torch.no_grad():
        before = reader.model(ids).logits
        reader.read(several, PlannedCache(plan_of("20%", TOKENS)))
        assert torch.equal(reader.model(ids).logits, before)


def test_generation_ends_at_the_token_that_ends_a_text(reader, several):
    """A model that says nothing but the end of the text."""
    model = copy.deepcopy(reader.model)
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        model.generation_config.eos_token_id = 0
    ended = Reader(model, reader.tokenizer, reader.wording)
    assert ended.read(several, FullCache()).token_seconds == []


def test_nothing_is_said_to_be_unused(reader, several, prose, plan_of):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sample in (several, prose):
            assert reader.read(sample, PlannedCache(plan_of("50%", TOKENS))).logits


def test_a_data_sets_question_may_be_empty(reader):
    wording = Wording(reader.wording.encode, between="")
    sample = Sample("One two three four", (Question("", "", (" five",), 3),), "x")
    found = Reader(reader.model, reader.tokenizer, wording).read(sample, FullCache())
    assert len(found.said) == 1
    assert len(found.logits[0]) == len(wording.answer_ids(sample, sample.questions[0])) + 1


def test_the_same_question_twice_gets_the_same_answer_twice(reader, several, plan_of):
    question = several.questions[0]
    found = reader.read(
        replace(several, questions=(question,) * 3), PlannedCache(plan_of("50%", TOKENS))
    )
    assert len(set(found.said)) == 1
    assert all(torch.equal(each, found.logits[0]) for each in found.logits)


def test_readings_leave_nothing_behind_for_those_that_follow(reader, several, turns, plan_of):
    """Random draws and divisions made anew for a context are those of that context alone."""
    plan = plan_of("20%", TOKENS)
    kinds = [
        PlannedCache(plan, kvb.heuristics.RandomOrder(seed=3)),
        PlannedCache(plan, kvb.heuristics.SinkRecent(), kvb.Global()),
    ]
    alone = [reader.read(several, kind).logits for kind in kinds]
    for kind, expected in zip(reversed(kinds), reversed(alone), strict=True):
        reader.read(turns, kind)
        again = reader.read(several, kind).logits
        assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_the_most_that_is_read_at_once_ends_with_the_longest_known_question(
    reader, knowing, several, turns
):
    short, long = several.questions[0], replace(several.questions[1], text=" word" * 30)
    asked = replace(several, questions=(short, long, short))
    context = reader.wording.context_ids(asked)
    assert reader.longest_ids(asked) == context
    assert knowing.longest_ids(asked) == context + reader.wording.question_ids(asked, long)
    talk = replace(turns, questions=(short, long))
    assert knowing.longest_ids(talk)[len(reader.wording.context_ids(talk)) :] == (
        reader.wording.question_ids(talk, short)
    )
