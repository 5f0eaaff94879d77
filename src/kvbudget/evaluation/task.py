"""The abstract task: makes samples of a kind."""

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from .room import Room
from .sample import Form, Sample


@dataclass(frozen=True, slots=True)
class Task(ABC):
    """Makes samples of one kind; one frozen dataclass and one method for each.

    Attributes:
        name: What the task is called in tables, in files and on the command line.
        form: How its answers are given and judged.
    """

    name: ClassVar[str]
    form: ClassVar[Form]

    @abstractmethod
    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Draw a sample that fills its room: never over it, and hardly under.

        Args:
            room: Prose, and how many tokens to fill.
            rng: The only source of chance.
        """


def draw(task: Task, room: Room, seed: int) -> Sample:
    """The sample of a task that belongs to a seed; the same arguments give the same sample.

    Raises:
        NoRoom: The room is too small for the task, or the text too short.
    """
    return replace(task.sample(room, random.Random(f"{task.name} {seed}")), seed=seed)
