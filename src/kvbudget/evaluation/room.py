"""What a task makes its samples of: prose, words, and so many tokens."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from kvbudget.allocator.checks import check_count
from kvbudget.needles import MAX_NEEDLES, Needle, draw_needles, hide, split

from .sample import Sample
from .wording import Wording

SPARE_TOKENS = 4
LEAST_SENTENCES = 20
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"\s*\S+")
_SENTENCE_END = re.compile(r"[.!?](?=\s)")


class NoRoom(ValueError):
    """A task needs more tokens, or more of a text, than there is."""


@dataclass(frozen=True, slots=True)
class Room:
    """So many tokens to fill, and prose to fill them with.

    Args:
        text: Prose as it stands.
        sentences: Its sentences, in order.
        wording: Counts the tokens.
        context_tokens: Most tokens of context, question and answer together.
    """

    text: str
    sentences: Sequence[str]
    wording: Wording
    context_tokens: int

    @classmethod
    def of(cls, text: str, wording: Wording, context_tokens: int) -> "Room":
        """Room for samples out of a text.

        Raises:
            ValueError: The text has too few sentences.
        """
        sentences = split(text)
        if len(sentences) < LEAST_SENTENCES:
            raise ValueError(
                f"`text` must hold at least {LEAST_SENTENCES} sentences of 31 to 219 characters, "
                f"but got {len(sentences)}. Give a longer text."
            )
        return cls(text, sentences, wording, context_tokens)

    @property
    def most_rows(self) -> int:
        """More rows of a table than there is room for: a row takes more than four tokens."""
        return 100 + self.context_tokens // 4

    def largest(self, task: str, build: Callable[[int], Sample]) -> Sample:
        """The largest sample that fits.

        Args:
            task: Name of the task, for messages.
            build: Makes a sample of some size, counted in whatever the task likes; 0 is the
                smallest, and one more never takes fewer tokens.

        Raises:
            NoRoom: Not even the smallest fits.
        """
        least = self.wording.length(build(0))
        if least > self.context_tokens:
            raise NoRoom(
                f"`context_tokens` must be at least {least} for the task {task}, but got "
                f"{self.context_tokens}. Give more, or leave the task out."
            )
        fits, too_many = 0, 1
        # what a task counts takes a token at least, unless it has run out of what it counts
        while too_many <= self.context_tokens and self._fits(build(too_many)):
            fits, too_many = too_many, 2 * too_many
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if self._fits(build(middle)) else (fits, middle)
        return build(fits)

    def prose(self, rng: random.Random) -> Callable[[int], list[str]]:
        """Consecutive sentences from anywhere: a function that gives the first so many words."""
        start = rng.randrange(len(self.sentences))

        def first(num_words: int) -> list[str]:
            found: list[str] = []
            at, left = start, num_words
            while left > 0:
                words = self.sentences[at % len(self.sentences)].split()[:left]
                found.append(" ".join(words))
                at, left = at + 1, left - len(words)
            return found

        return first

    def needles(self, rng: random.Random, count: int) -> list[Needle]:
        """Facts to hide, none of whose numbers stands in the text already.

        Raises:
            ValueError: There are names for fewer.
        """
        check_count("needles", count, most=MAX_NEEDLES)
        taken = set(_NUMBER.findall(self.text))
        needles = draw_needles(rng, count)
        while any(needle.number in taken for needle in needles):
            needles = draw_needles(rng, count)
        return needles

    def haystack(self, rng: random.Random, needles: Sequence[Needle]) -> Callable[[int], str]:
        """Prose with needles in it, anywhere: a function of the number of its words."""
        prose = self.prose(rng)
        depths = [rng.random() for _ in needles]
        return lambda num_words: hide(prose(num_words), needles, depths) + "\n"

    def passage(self, rng: random.Random) -> Callable[[int], list[str]]:
        """The text as it stands, from the beginning of a sentence: its first so many words.

        Each word comes with the space before it. Near its end the text begins anew.
        """
        border = _SENTENCE_END.search(self.text, rng.randrange(len(self.text)))
        from_there = self.text[border.end() if border is not None else 0 :]

        def first(num_words: int) -> list[str]:
            source = from_there
            words: list[str] = []
            while len(words) < num_words:
                found = islice(_WORD.finditer(source), num_words - len(words))
                words += [match.group() for match in found]
                source = "\n" + self.text
            return words

        return first

    def _fits(self, sample: Sample) -> bool:
        return self.wording.length(sample) <= self.context_tokens

    def tokens_of(self, answer: str) -> int:
        """Tokens that an answer may take: its own, and a few for how it ends."""
        return len(self.wording.encode(answer)) + SPARE_TOKENS
