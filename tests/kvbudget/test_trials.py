"""Trials have the sizes asked for, hide what they ask for, and share nothing with each other."""

from dataclasses import replace

import pytest

import kvbudget as kvb
from kvbudget.prose import built_in_sentences
from kvbudget.trials import NEEDLES, TrialMaker, windows


@pytest.fixture(scope="module")
def tokenizer():
    return kvb.reference_model()[1]


@pytest.fixture(scope="module")
def maker(tokenizer):
    return TrialMaker(built_in_sentences(), tokenizer, 400, 120)


@pytest.mark.parametrize("seed", range(5))
def test_every_trial_has_the_size_asked_for(maker, seed):
    for trial in (maker.needles(seed), maker.text(seed)):
        assert len(trial.context) == 400
        assert len(trial.future) == 120
        assert trial.ids == trial.context + trial.future


@pytest.mark.parametrize("context_tokens", [150, 400, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_every_answer_is_a_number_hidden_in_the_context(maker, tokenizer, seed, context_tokens):
    trial = replace(maker, context_tokens=context_tokens).needles(seed)
    context, future = tokenizer.decode(trial.context), tokenizer.decode(trial.future)
    answers = [tokenizer.decode(trial.future[start:end]) for start, end in trial.answers]
    assert 3 <= len(answers) <= NEEDLES
    for answer in answers:
        assert answer.isdigit()
        assert context.count(f"is {answer}.") == 1
        assert f"Answer: {answer}" in future


def test_a_trial_depends_on_its_seed_alone(maker):
    assert maker.mixed(4, seed=7) == maker.mixed(4, seed=7)
    assert maker.needles(1) != maker.needles(2)
    assert maker.text(1) != maker.text(2)


def test_mixed_trials_take_turns(maker):
    assert [bool(trial.answers) for trial in maker.mixed(5, seed=0)] == [True, False] * 2 + [True]


def test_what_a_tokenizer_puts_first_stays_first(tokenizer):
    class WithStart:
        def __call__(self, text, add_special_tokens=True):
            ids = tokenizer(text)["input_ids"]
            return {"input_ids": [9, *ids] if add_special_tokens else ids}

    maker = TrialMaker(built_in_sentences(), WithStart(), 300, 40)
    for trial in maker.mixed(2, seed=0):
        assert trial.context[0] == 9
        assert len(trial.context) == 300


@pytest.mark.parametrize(
    ("count", "starts"), [(1, [0]), (2, [0, 75]), (3, [0, 37, 74]), (9, [0, 25, 50, 75])]
)
def test_windows_are_spread_over_the_text_and_do_not_overlap(count, starts):
    found = windows(list(range(100)), 25, count)
    assert [window[0] for window in found] == starts
    assert all(len(window) == 25 for window in found)
    assert len({token for window in found for token in window}) == 25 * len(found)


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="must have at least 25 tokens"):
        windows(list(range(24)), 25, 1)
