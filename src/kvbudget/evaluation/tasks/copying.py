"""A list of random words, said again from some places on.

Original: what a list was is not to be guessed, so each word that is right was kept and found.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Form, Question, Sample
from kvbudget.evaluation.scoring import share_in_place
from kvbudget.evaluation.task import Task

from .names import draw_hex, draw_shares, draw_who


@dataclass(frozen=True, slots=True)
class Copying(Task):
    """A list of random words fills the context, and goes on behind two words of it.

    Args:
        places: How many places it is taken up at.
        words: How many words are to follow at each.
    """

    places: int = 4
    words: int = 4

    name: ClassVar[str] = "copying"
    form: ClassVar[Form] = Form(share_in_place, ends_at_line=True, lead=" ", joined_by=" ")

    def sample(self, room: Room, rng: random.Random) -> Sample:
        """Draw words and take up the list at some places."""
        drawn = draw_list(rng, 100 + room.context_tokens)
        shares = draw_shares(rng, self.places)

        def question(words: list[str], share: float) -> Question:
            at = 2 + int(share * (len(words) - 1 - self.words))
            right = tuple(words[at : at + self.words])
            begun = f"again: {words[at - 2]} {words[at - 1]}"
            return Question("\nSay the list again.", begun, right, room.tokens_of(" ".join(right)))

        def build(more: int) -> Sample:
            words = drawn[: self.words + 2 * self.places + more]
            asked = tuple(question(words, share) for share in shares)
            return Sample("list: " + " ".join(words), asked, self.name, form=self.form)

        return room.largest(self.name, build)


def draw_list(rng: random.Random, count: int) -> list[str]:
    """So many words, of which no two follow each other twice: two of them tell a place."""
    words, pairs = [_draw_word(rng)], set[tuple[str, str]]()
    while len(words) < count:
        pair = (words[-1], _draw_word(rng))
        if pair not in pairs:
            pairs.add(pair)
            words.append(pair[1])
    return words


def _draw_word(rng: random.Random) -> str:
    return draw_hex(rng) if rng.random() < 0.5 else draw_who(rng)
