"""One needle in a haystack.

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
class SingleNeedle(Task):
    """A fact is hidden anywhere in prose, and asked for."""

    name: ClassVar[str] = "needle"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Hide one needle."""
        needles = room.needles(rng, 1)
        haystack = room.haystack(rng, needles)
        asked = (ask(needles[0], room),)
        return room.largest(
            self.name, lambda words: Sample(haystack(words), asked, self.name, form=self.form)
        )
