"""One of several needles in a haystack.

Reference:
    Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?",
    COLM 2024. https://arxiv.org/abs/2404.06654
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Form, Sample
from kvbudget.evaluation.scoring import begins_exactly
from kvbudget.evaluation.task import Task

from .asking import ask


@dataclass(frozen=True, slots=True)
class MultiKeyNeedle(Task):
    """Several facts about different people are hidden, and one of them is asked for.

    Args:
        needles: How many are hidden.
    """

    needles: int = 8

    name: ClassVar[str] = "needle_multi_key"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Hide needles; the first one drawn is asked for, and lies anywhere."""
        needles = room.needles(rng, self.needles)
        haystack = room.haystack(rng, needles)
        asked = (ask(needles[0], room),)
        return room.largest(
            self.name, lambda words: Sample(haystack(words), asked, self.name, form=self.form)
        )
