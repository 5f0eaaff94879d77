"""The prompts: sizes, answers, and what is held apart."""

from itertools import pairwise

import pytest

from kvbudget import reference_model
from kvbudget.prose import built_in_sentences


@pytest.fixture(scope="module")
def tokenizer():
    return reference_model()[1]


@pytest.fixture(scope="module")
def maker(peers, tokenizer):
    return peers("prompts").PromptMaker(tokenizer, [" ".join(built_in_sentences())])


@pytest.mark.parametrize("kind", ["prose", "needles", "lookups"])
def test_every_context_and_every_future_has_the_same_length(peers, maker, kind):
    made = getattr(maker, kind)(3)
    assert (len(made.context), len(made.future)) == (1024, 256)


def test_lookups_ask_for_values_that_are_in_the_context(maker, tokenizer):
    made = maker.lookups(3)
    context = tokenizer.decode(made.context)
    asked = tokenizer.decode(made.future)
    assert len(made.answers) > 8
    for start, end in made.answers:
        value = tokenizer.decode(made.future[start:end])
        key = tokenizer.decode(made.future[:start]).rsplit('get("', 1)[1].split('"')[0]
        assert f'"{key}": "{value}"' in context
        assert tokenizer.decode(made.future[end : end + 1]) == '"'
    assert asked.startswith('get("')


def test_the_same_seed_makes_the_same_prompt_and_another_another(maker):
    assert maker.lookups(3) == maker.lookups(3)
    assert maker.lookups(3) != maker.lookups(4)
    assert maker.prose(3).context != maker.prose(4).context


def test_uses_have_no_seed_in_common(peers):
    prompts = peers("prompts")
    first = sorted(prompts.FIRST_SEED.values())
    assert len(first) == 3
    assert all(b - a > 1000 for a, b in pairwise(first))


def test_trials_come_back_from_their_file_in_rounds(peers, tmp_path):
    module = peers("trial")
    made = [
        module.PeerTrial(use, kind, number, (1, 2), (3, 4), ((0, 1),))
        for use in ("fit", "test")
        for kind in ("a", "b")
        for number in (0, 1)
    ]
    module.write_trials(tmp_path / "prompts.jsonl", made)
    found = module.read_trials(tmp_path / "prompts.jsonl", "test")
    assert [(each.kind, each.number) for each in found] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert set(found) <= set(made)
