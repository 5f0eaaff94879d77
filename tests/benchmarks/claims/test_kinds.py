"""Prompts hold what their kind says."""

import pytest
import torch

from kvbudget.prose import built_in_sentences


@pytest.fixture(scope="module")
def prompts(claims, reader):
    sentences = built_in_sentences()
    return claims("kinds").make_prompts(reader, sentences[len(sentences) // 2 :], 2, 7)


def text_of(reader, ids):
    return reader.tokenizer.decode(ids)


def test_a_known_question_ends_the_context_and_its_answer_is_the_future(claims, reader, prompts):
    for kind, end in (("needles", "\nAnswer: "), ("lookups", '") -> "')):
        for prompt in prompts[f"{kind}, question known"]:
            assert len(prompt.trials) == claims("kinds").ASKED_OF_EACH
            for trial in prompt.trials:
                context, answer = text_of(reader, trial.context), text_of(reader, trial.future[:-1])
                assert context.endswith(end)
                question = context[: -len(end)].rsplit(" ", 1)[-1].removeprefix('get("').rstrip("?")
                # the answer stands in the table or the prose, behind what is asked for
                assert answer in context.rsplit(question, 1)[0]


def test_every_known_question_is_asked_of_the_whole_context_alone(reader, prompts):
    for kind, before in (("needles", "Question"), ("lookups", "get(")):
        whole = [prompt.trials[0].context for prompt in prompts[kind]]
        for prompt, context in zip(prompts[f"{kind}, question known"], whole, strict=True):
            for trial in prompt.trials:
                assert trial.context[: len(context)] == context
                assert text_of(reader, trial.context).count(before) == 1
                opening = text_of(reader, trial.context[len(context) :])
                assert opening.startswith("\nQuestion" if kind == "needles" else "}\nget(")


def test_known_answers_are_those_of_the_unknown_ones(reader, prompts):
    for kind in ("needles", "lookups"):
        for late, early in zip(prompts[kind], prompts[f"{kind}, question known"], strict=True):
            (trial,) = late.trials
            answers = [trial.future[start:end] for start, end in trial.answers[:2]]
            assert [each.future[:-1] for each in early.trials] == answers


def test_another_question_moves_one_question_and_its_answer_into_the_context(reader, prompts):
    for kind in ("needles", "lookups"):
        several = zip(prompts[kind], prompts[f"{kind}, cut for another question"], strict=True)
        for late, moved in several:
            (trial,), (other,) = late.trials, moved.trials
            assert other.ids == trial.ids
            assert len(other.answers) == len(trial.answers) - 1
            texts = [trial.future[a:b] for a, b in trial.answers[1:]]
            assert [other.future[a:b] for a, b in other.answers] == texts
            end = trial.answers[0][1]
            assert other.context[-3:] == trial.future[end - 3 : end]


def test_text_is_cut_while_it_is_written_and_nothing_else_is(prompts):
    blocks = {kind: {each.block_tokens for each in found} for kind, found in prompts.items()}
    assert blocks.pop("text, cut while writing") == {16}
    assert set().union(*blocks.values()) == {None}


def test_reading_in_blocks_expects_the_same_of_a_full_cache(reader, prompts):
    (prompt, *_), (trial,) = prompts["text, cut while writing"], prompts["text"][0].trials
    whole = reader.predict(trial, reader.read_context(trial))
    cache = reader.read_context(trial)
    parts = [reader.predict(part, cache) for part in prompt.parts(trial)]
    assert len(parts) == 16
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-4, rtol=0)


def test_the_model_can_do_the_lookups_and_they_fit(claims, reader):
    maker = claims("lookups").Lookups(reader, 500, 150)
    trials = [maker.trial(seed) for seed in range(4)]
    said = [
        exact
        for trial in trials
        for _, exact in reader.said(trial, reader.predict(trial, reader.read_context(trial)))
    ]
    assert sum(said) >= 0.8 * len(said) > 0
    for trial in trials:
        assert 480 < len(trial.context) <= 500
        assert len(trial.future) == 150


def test_no_table_has_two_values_for_a_name(claims, reader):
    maker = claims("lookups").Lookups(reader, 1500, 50)
    for seed in range(12):
        lines = text_of(reader, maker.trial(seed).context).strip("{, ").split(", ")
        names = [line.split('": "')[0] for line in lines]
        assert len(set(names)) == len(names) > 80


def test_the_same_seed_makes_the_same_prompts(claims, reader):
    make = claims("lookups").Lookups(reader, 300, 100).trial
    assert make(5) == make(5)
    assert make(5) != make(6)


def test_calibration_leaves_out_known_questions(claims, prompts):
    ids = claims("kinds").calibration_ids(prompts)
    assert ids == [
        trial.ids
        for kind in ("text", "needles", "lookups")
        for prompt in prompts[kind]
        for trial in prompt.trials
    ]


def test_the_question_looks_at_the_first_digit_of_its_answer_alone(reader, prompts):
    before = reader.model.config._attn_implementation
    reader.model.set_attn_implementation("eager")
    try:
        for prompt in (*prompts["needles, question known"], *prompts["lookups, question known"]):
            context, answer = prompt.trials[0].context, prompt.trials[0].future[:-1]
            ends = range(len(answer), len(context))
            (last,) = (end for end in ends if context[end - len(answer) : end] == answer)
            with torch.no_grad():
                maps = reader.model(torch.tensor([context]), output_attentions=True).attentions
            # the page says so of the two query heads of the cache that finds answers
            weights = maps[4][0, :2, -1, last - len(answer) : last].mean(0)
            assert weights[0] > 0.9
            assert weights[1:].sum() < 0.1
    finally:
        reader.model.set_attn_implementation(before)
