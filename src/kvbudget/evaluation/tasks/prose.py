"""Prose that goes on: perplexity, and divergence from the full cache.

Original: the cache is cut where nobody knows how the text goes on, and reads the rest behind that.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Form, Question, Sample
from kvbudget.evaluation.task import Task


@dataclass(frozen=True, slots=True)
class Prose(Task):
    """A passage of the text as it stands; its last part is predicted word by word.

    Args:
        future: Share of the passage's words that are predicted, the others being context.
    """

    future: float = 0.125

    name: ClassVar[str] = "prose"
    form: ClassVar[Form] = Form(is_text=True)

    def __post_init__(self) -> None:
        """Check that there is something to read and something to predict.

        Raises:
            ValueError: The share lies outside of 0..1, or on its border.
        """
        if not 0 < self.future < 1:
            raise ValueError(f"`future` must lie between 0 and 1, but got {self.future}.")

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Draw a passage."""
        passage = room.passage(rng)

        def build(more: int) -> Sample:
            words = passage(more + 2)
            cut = max(1, len(words) - max(1, round(self.future * len(words))))
            goes_on = Question("", "", ("".join(words[cut:]),), 0)
            return Sample("".join(words[:cut]).strip(), (goes_on,), self.name, form=self.form)

        return room.largest(self.name, build)
