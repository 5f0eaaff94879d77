"""Tables of random values under names, as the shipped model was trained to look them up."""

import random
from dataclasses import dataclass

from kvbudget.demo.trying import Reader
from kvbudget.needles import NAMES
from kvbudget.trials import Trial


@dataclass(frozen=True, slots=True)
class Lookups:
    """Makes tables that fill a context, then lookups in random order.

    Args:
        reader: Whose tokenizer counts the tokens.
        context_tokens: Most tokens of a context.
        future_tokens: Tokens of a future.
    """

    reader: Reader
    context_tokens: int
    future_tokens: int

    @property
    def opening_tokens(self) -> int:
        """Tokens between the table and the first lookup."""
        return len(self._ids("}\n"))

    @property
    def closing_tokens(self) -> int:
        """Tokens that close an answer."""
        return len(self._ids('"\n'))

    def trial(self, seed: int) -> Trial:
        """One table, and as many lookups as the future holds."""
        rng = random.Random(f"named lookups {seed}")
        table: dict[str, str] = {}
        context = self._ids("{")
        while True:
            key, value = _key(rng), f"{rng.randrange(16**6):06x}"
            pair = self._ids(f'"{key}": "{value}", ')
            if len(context) + len(pair) > self.context_tokens:
                break
            if key not in table:
                table[key] = value
                context += pair
        return Trial(context, *self._lookups(rng, table))

    def _lookups(
        self, rng: random.Random, table: dict[str, str]
    ) -> tuple[list[int], tuple[tuple[int, int], ...]]:
        future, answers = self._ids("}\n"), []
        for key in rng.sample(sorted(table), len(table)):
            future += self._ids(f'get("{key}") -> "')
            start = len(future)
            future += self._ids(table[key])
            answers.append((start, len(future)))
            future += self._ids('"\n')
        fitting = tuple(pair for pair in answers if pair[1] < self.future_tokens)
        return future[: self.future_tokens], fitting

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.reader.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _key(rng: random.Random) -> str:
    first, second = rng.choice(NAMES), rng.choice(("", f"-{rng.choice(NAMES)}"))
    return f"{first}{second}{rng.randrange(100)}"
