"""Variables whose values are asked for, directly or through other variables.

Reference:
    Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?",
    COLM 2024. https://arxiv.org/abs/2404.06654
    There all variables with a value are asked for; here it is the value of the last of a chain.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from kvbudget.allocator.checks import check_count
from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Form, Question, Sample
from kvbudget.evaluation.scoring import begins_exactly
from kvbudget.evaluation.task import Task
from kvbudget.needles import NAMES

from .names import distinct, draw_digits, draw_shares, picked


@dataclass(frozen=True, slots=True)
class Assignments(Task):
    """Assignments of numbers fill the context, and some variables are printed.

    Args:
        printed: How many variables.
    """

    printed: int = 4

    name: ClassVar[str] = "variables"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Assign numbers and print some variables."""
        values = [(name, draw_digits(rng)) for name in draw_variables(room, rng)]
        shares = draw_shares(rng, self.printed)

        def build(more: int) -> Sample:
            rows = values[: self.printed + more]
            context = "\n".join(f"{name} = {value}" for name, value in rows)
            asked = tuple(show(room, *row) for row in picked(rows, shares))
            return Sample(context, asked, self.name, form=self.form)

        return room.largest(self.name, build)


@dataclass(frozen=True, slots=True)
class VariableTracking(Task):
    """A number is handed on from variable to variable among other assignments.

    Args:
        hops: How often it is handed on.
    """

    hops: int = 4

    name: ClassVar[str] = "variable_tracking"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Hand a number on, and print the last variable."""
        check_count("hops", self.hops, least=0)
        names = draw_variables(room, rng)
        chain, others = names[: self.hops + 1], names[self.hops + 1 :]
        number = draw_digits(rng)
        handed = [f"{name} = {what}" for name, what in zip(chain, [number, *chain], strict=False)]
        places = sorted(rng.random() for _ in handed)
        noise = [f"{name} = {draw_digits(rng)}" for name in others]

        def build(num_others: int) -> Sample:
            lines = noise[:num_others]
            # from behind, so that places before stay what they are
            for place, line in reversed(list(zip(places, handed, strict=True))):
                lines.insert(round(place * num_others), line)
            asked = (show(room, chain[-1], number),)
            return Sample("\n".join(lines), asked, self.name, form=self.form)

        return room.largest(self.name, build)


def draw_variables(room: Room, rng: random.Random) -> list[str]:
    """Names of variables, more than there is room for."""
    numbers = max(50, room.context_tokens)
    return distinct(lambda: f"{rng.choice(NAMES)}_{rng.randrange(numbers)}", room.most_rows)


def show(room: Room, name: str, value: str) -> Question:
    """The question for a variable's value."""
    text = f"\nWhat is the value of {name}?"
    return Question(text, f"print({name})  # ", (value,), room.tokens_of(value))
