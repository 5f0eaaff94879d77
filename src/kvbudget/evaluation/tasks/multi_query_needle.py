"""Several needles in a haystack, all of them asked for.

Reference:
    Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?",
    COLM 2024. https://arxiv.org/abs/2404.06654
    There one prompt asks for all of them; here each has a question of its own behind the same
    context, so that a small model knows what is meant and every fact has to survive the cut.
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
class MultiQueryNeedle(Task):
    """Several facts about different people are hidden, and each of them is asked for.

    Args:
        needles: How many are hidden, and asked for one by one.
    """

    needles: int = 4

    name: ClassVar[str] = "needle_multi_query"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Hide needles and ask for each."""
        needles = room.needles(rng, self.needles)
        haystack = room.haystack(rng, needles)
        asked = tuple(ask(needle, room) for needle in needles)
        return room.largest(
            self.name, lambda words: Sample(haystack(words), asked, self.name, form=self.form)
        )
