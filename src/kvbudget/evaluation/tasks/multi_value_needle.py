"""Several values of one key in a haystack, all of them asked for at once.

Reference:
    Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?",
    COLM 2024. https://arxiv.org/abs/2404.06654
"""

import random
from dataclasses import dataclass, replace
from typing import ClassVar

from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Form, Question, Sample
from kvbudget.evaluation.task import Task


@dataclass(frozen=True, slots=True)
class MultiValueNeedle(Task):
    """Somebody has several numbers of a kind, hidden in different places, to be listed.

    Args:
        needles: How many numbers are hidden.
    """

    needles: int = 4

    name: ClassVar[str] = "needle_multi_value"
    form: ClassVar[Form] = Form()

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Hide numbers of the same kind and person, and ask for all."""
        first, *others = room.needles(rng, self.needles)
        needles = [first] + [replace(first, number=other.number) for other in others]
        haystack = room.haystack(rng, needles)
        numbers = tuple(needle.number for needle in needles)
        asked = Question(
            f"\nQuestion: What are all the {first.kind}s of {first.who}?",
            "Answer: ",
            numbers,
            room.tokens_of(", ".join(numbers)),
        )
        return room.largest(
            self.name, lambda words: Sample(haystack(words), (asked,), self.name, form=self.form)
        )
