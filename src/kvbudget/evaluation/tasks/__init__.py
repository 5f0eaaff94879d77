"""The tasks: one file for each kind, one object with default settings under each name."""

import difflib

from kvbudget.evaluation.task import Task

from .common_words import CommonWords
from .copying import Copying
from .key_values import KeyValues
from .lines import Lines
from .multi_key_needle import MultiKeyNeedle
from .multi_query_needle import MultiQueryNeedle
from .multi_turn import MultiTurn
from .multi_value_needle import MultiValueNeedle
from .needle import SingleNeedle
from .prose import Prose
from .variables import Assignments, VariableTracking

__all__ = [
    "Assignments",
    "CommonWords",
    "Copying",
    "KeyValues",
    "Lines",
    "MultiKeyNeedle",
    "MultiQueryNeedle",
    "MultiTurn",
    "MultiValueNeedle",
    "Prose",
    "SingleNeedle",
    "VariableTracking",
]

BUILT_IN: tuple[Task, ...] = (
    Prose(),
    SingleNeedle(),
    MultiKeyNeedle(),
    MultiValueNeedle(),
    MultiQueryNeedle(),
    MultiTurn(),
    KeyValues(),
    Lines(),
    Assignments(),
    VariableTracking(),
    CommonWords(),
    Copying(),
)


def names() -> list[str]:
    """Names of all tasks, in the order of their tables."""
    return [task.name for task in BUILT_IN]


def named(name: str) -> Task:
    """A task with its default settings.

    Raises:
        ValueError: No task has that name; the message lists the names.
    """
    for task in BUILT_IN:
        if task.name == name:
            return task
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"`task` must be one of {', '.join(names())}, but got {name!r}.{hint}")
