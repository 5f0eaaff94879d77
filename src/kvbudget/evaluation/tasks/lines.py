"""Numbered records, some of which are asked for by their label.

Reference:
    Li et al., "How Long Can Open-Source LLMs Truly Promise on Context Length?", 2023 (LongEval,
    lines). https://lmsys.org/blog/2023-06-29-longchat/
    There every line says the same words around its number; here a line is a label and a number.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Form, Question, Sample
from kvbudget.evaluation.scoring import begins_exactly
from kvbudget.evaluation.task import Task
from kvbudget.needles import NAMES

from .names import distinct, draw_digits, draw_shares, draw_who, picked

MANY_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Lines(Task):
    """Lines of labels and numbers fill the context, and the numbers of some labels are asked for.

    Args:
        asked: How many labels.
    """

    asked: int = 4

    name: ClassVar[str] = "lines"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Fill lines and ask for some."""
        labels = draw_labels(rng, room.most_rows)
        records = [(label, draw_digits(rng)) for label in labels]
        shares = draw_shares(rng, self.asked)

        def question(label: str, number: str) -> Question:
            text = f"\nWhich number is on the line {label}?"
            return Question(text, f"line {label}: ", (number,), room.tokens_of(number))

        def build(more: int) -> Sample:
            rows = records[: self.asked + more]
            context = "\n".join(f"line {label}: {number}" for label, number in rows)
            asked = tuple(question(*row) for row in picked(rows, shares))
            return Sample(context, asked, self.name, form=self.form)

        return room.largest(self.name, build)


def draw_labels(rng: random.Random, count: int) -> list[str]:
    """So many different labels: of two or three names, and of one more where those run out."""
    more = 1 if count < MANY_ROWS else 2
    return distinct(
        lambda: "-".join([draw_who(rng), *(rng.choice(NAMES) for _ in range(more))]), count
    )
