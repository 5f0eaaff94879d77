"""A conversation about one context, which is read once.

Original: the questions are those of the needles, and each follows the one before and its answer.
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
class MultiTurn(Task):
    """Several facts are hidden, and asked for one after the other in one conversation.

    The right answer to each question stands before the next one, whatever the model said, so that
    one mistake is not counted twice.

    Args:
        turns: How many questions there are.
    """

    turns: int = 6

    name: ClassVar[str] = "multi_turn"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True, is_conversation=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Hide needles and talk about each."""
        needles = room.needles(rng, self.turns)
        haystack = room.haystack(rng, needles)
        asked = tuple(ask(needle, room) for needle in needles)
        return room.largest(
            self.name, lambda words: Sample(haystack(words), asked, self.name, form=self.form)
        )
