"""How needles are asked for: in the words that the shipped model was trained on."""

from kvbudget.evaluation.room import Room
from kvbudget.evaluation.sample import Question
from kvbudget.needles import Needle


def ask(needle: Needle, room: Room) -> Question:
    """The question about one needle; its answer is a line of its own."""
    text, _, prefix = needle.question.rpartition("\n")
    return Question(text, prefix, (needle.number,), room.tokens_of(needle.number))
