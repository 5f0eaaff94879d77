"""Probes: what is repeated where, and what a heuristic may not answer."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvbudget import heuristics
from kvbudget.heuristics import CacheView, Probe, ProbeHeuristic, checked_probe
from kvbudget.heuristics.probe import hide, needle_sizes, random_tokens

PROMPT = list(range(100, 164))


@dataclass(frozen=True, slots=True)
class Scripted(ProbeHeuristic):
    """Answers with a probe that it was given."""

    answer: Probe | None = None

    def probe(self, prompt: Sequence[int], vocabulary: int, draw: random.Random) -> Probe:
        return self.answer  # type: ignore[return-value]

    def importance(self, view: CacheView) -> torch.Tensor:
        return torch.ones(1)


@given(
    prompt=st.lists(st.integers(0, 9), min_size=13, max_size=60),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    seed=st.integers(0, 99),
)
def test_needles_stand_in_the_prompt_and_once_more_at_its_end(
    prompt: list[int], sizes: list[int], seed: int
) -> None:
    needles = [
        [100 * index + place for place in range(size)] for index, size in enumerate(sizes, 1)
    ]
    probe = hide(prompt, needles, random.Random(seed))
    assert len(probe.tokens) == len(probe.copied_from) == len(prompt)
    assert probe.tokens[0] == prompt[0]
    hidden = sum(sizes)
    behind = len(prompt) - hidden
    hay = [token for token in probe.tokens[:behind] if token < 100]
    assert hay == prompt[: len(prompt) - 2 * hidden]
    assert set(probe.copied_from[:behind]) == {-1}
    for needle in needles:
        first, second = (i for i, token in enumerate(probe.tokens) if token == needle[0])
        assert first < behind <= second
        for place, token in enumerate(needle):
            assert probe.tokens[first + place] == probe.tokens[second + place] == token
            assert probe.copied_from[second + place] == first + place


def test_needles_are_hidden_at_every_depth_and_repeated_in_every_order() -> None:
    ones = [hide(PROMPT, [[1, 2]], random.Random(seed)) for seed in range(600)]
    assert {probe.tokens.index(1) for probe in ones} == set(range(1, 61))
    pairs = [hide(PROMPT, [[1, 2], [3, 4]], random.Random(seed)) for seed in range(20)]
    assert {probe.tokens[-4:] for probe in pairs} == {(1, 2, 3, 4), (3, 4, 1, 2)}


@pytest.mark.parametrize(
    ("tokens", "wanted"), [(2000, (10, 32)), (1024, (8, 32)), (100, (1, 25)), (8, (1, 2))]
)
def test_needles_are_at_most_a_quarter_of_the_prompt(tokens: int, wanted: tuple[int, int]) -> None:
    assert needle_sizes(range(tokens), 10, 32) == wanted


def test_a_prompt_that_can_hide_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`prompt` must have at least 8 tokens to hide something"):
        needle_sizes(range(7), 1, 2)


def test_random_tokens_repeat_only_when_the_vocabulary_is_used_up() -> None:
    draw = random.Random(3)
    assert sorted(random_tokens(50, 50, draw)) == list(range(50))
    assert sorted(random_tokens(7, 3, draw)[:6]) == [0, 0, 1, 1, 2, 2]
    assert random_tokens(9, 50, random.Random(4)) == random_tokens(9, 50, random.Random(4))
    assert random_tokens(9, 50, random.Random(4)) != random_tokens(9, 50, random.Random(5))


@pytest.mark.parametrize("copied_from", [(-1, 1, -1), (-1, 0, -1), (-1, -1, -2), (-1, -1, 1)])
def test_a_copy_of_another_or_a_later_token_is_refused(copied_from: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must lead to an earlier token of the same id or be -1"):
        Probe((5, 6, 5), copied_from)
    assert Probe((5, 6, 5), (-1, -1, 0)).copied_from[2] == 0


def test_a_probe_needs_an_entry_for_every_token() -> None:
    with pytest.raises(ValueError, match="one entry per token, 2, but got 1"):
        Probe((5, 6), (-1,))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (None, TypeError, "`probe` of Scripted must return a Probe, but got NoneType"),
        (Probe((), ()), ValueError, "must return 1 to 64 tokens, .* but got 0"),
        (Probe((1,) * 65, (-1,) * 65), ValueError, "must return 1 to 64 tokens, .* but got 65"),
        (Probe((1, 200), (-1, -1)), ValueError, r"tokens in 0\.\.199, but got 1\.\.200"),
        (Probe((-1, 2), (-1, -1)), ValueError, r"tokens in 0\.\.199, but got -1\.\.2"),
    ],
)
def test_a_probe_that_the_model_cannot_read_is_refused(
    answer: Probe | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        checked_probe(Scripted(answer), PROMPT, 200, random.Random(0))


def test_a_good_probe_is_passed_on() -> None:
    probe = Probe((199, 0, 199), (-1, -1, 0))
    assert checked_probe(Scripted(probe), PROMPT, 200, random.Random(0)) is probe


@pytest.mark.parametrize("name", heuristics.names(ProbeHeuristic))
@pytest.mark.parametrize(("tokens", "vocabulary"), [(32, 97), (200, 5), (3000, 1100)])
def test_every_probe_can_be_read_and_follows_from_prompt_and_seed(
    name: str, tokens: int, vocabulary: int
) -> None:
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, ProbeHeuristic)
    prompt = [token % vocabulary for token in range(tokens)]
    first, same, other = (
        checked_probe(heuristic, prompt, vocabulary, random.Random(seed)) for seed in (7, 7, 8)
    )
    assert first == same != other
    assert first.tokens[0] == prompt[0]
    assert sum(source >= 0 for source in first.copied_from) >= 2
