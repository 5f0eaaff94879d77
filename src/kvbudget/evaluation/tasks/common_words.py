"""The most common words of a list.

Reference:
    Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?",
    COLM 2024. https://arxiv.org/abs/2404.06654
"""

import random
import re
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar

from kvbudget.evaluation.room import NoRoom, Room
from kvbudget.evaluation.sample import Form, Question, Sample
from kvbudget.evaluation.task import Task

_WORD = re.compile(r"\b[^\W\d_]{4,10}\b")
_LEAST_SELDOM = 5


@dataclass(frozen=True, slots=True)
class CommonWords(Task):
    """A numbered list of words in which a few come often, which are to be named.

    Args:
        common: How many words come often.
        times: How often each of them comes; the others come once, or each so many times as often
            where the text has too few of them.
    """

    common: int = 5
    times: int = 8

    name: ClassVar[str] = "common_words"
    form: ClassVar[Form] = Form()

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Mix often and seldom used words of the text."""
        words = {word for each in room.sentences for word in _WORD.findall(each)}
        known = sorted(filter(str.islower, words))
        if len(known) < self.common + _LEAST_SELDOM:
            raise NoRoom(
                f"`text` must hold at least {self.common + _LEAST_SELDOM} different words of 4 to "
                f"10 small letters for the task {self.name}, but got {len(known)}. Give a longer "
                f"text, or leave the task out."
            )
        drawn = rng.sample(known, len(known))
        often, seldom = tuple(drawn[: self.common]), drawn[self.common :]
        asked = Question(
            f"\nQuestion: Which {self.common} words come most often in the list?",
            "Answer: ",
            often,
            room.tokens_of(", ".join(often)),
        )
        order = rng.random()

        def build(num_seldom: int) -> Sample:
            # where the text has too few words for so long a list, all come more often
            rounds = 1 + num_seldom // len(seldom)
            words = [*often] * self.times * rounds + list(islice(cycle(seldom), num_seldom))
            random.Random(order).shuffle(words)
            context = " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))
            return Sample(context, (asked,), self.name, form=self.form)

        return room.largest(self.name, build)
