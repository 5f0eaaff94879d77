"""Lookups in a table of random keys and values.

Reference:
    Liu et al., "Lost in the Middle: How Language Models Use Long Contexts", TACL 2024.
    https://arxiv.org/abs/2307.03172
    There keys and values are long random identifiers; here they are shorter.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Form, Question, Sample
from kvbudget.evaluation.scoring import begins_exactly
from kvbudget.evaluation.task import Task

from .names import distinct, draw_hex, draw_shares, draw_who, picked


@dataclass(frozen=True, slots=True)
class KeyValues(Task):
    """A table in the form of JSON fills the context, and some of its keys are looked up.

    Args:
        lookups: How many keys.
    """

    lookups: int = 4

    name: ClassVar[str] = "key_values"
    form: ClassVar[Form] = Form(begins_exactly, ends_at_line=True)

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Fill a table and look keys up."""
        numbers = max(100, room.context_tokens)
        keys = distinct(lambda: f"{draw_who(rng)}{rng.randrange(numbers)}", room.most_rows)
        table = [(key, draw_hex(rng)) for key in keys]
        shares = draw_shares(rng, self.lookups)

        def question(key: str, value: str) -> Question:
            text = f'\nWhich value belongs to the key "{key}"?'
            return Question(text, f'get("{key}") -> "', (value,), room.tokens_of(value))

        def build(more: int) -> Sample:
            rows = table[: self.lookups + more]
            context = "{" + ", ".join(f'"{key}": "{value}"' for key, value in rows) + "}"
            asked = tuple(question(*row) for row in picked(rows, shares))
            return Sample(context, asked, self.name, form=self.form)

        return room.largest(self.name, build)
