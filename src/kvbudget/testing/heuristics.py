"""The suite for heuristics: which checks there are, and running them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvbudget.heuristics import (
    CacheHeuristic,
    Heuristic,
    ProbeHeuristic,
    RereadingHeuristic,
    RunningHeuristic,
    TokenHeuristic,
    register,
    registration_scope,
    settings_of,
)
from kvbudget.heuristics.registry import build

from .answers import raised, require
from .cache_checks import CACHE_CHECKS
from .frozen import require_frozen_value
from .prompt_checks import PROBE_CHECKS, REREADING_CHECKS
from .running_checks import RUNNING_CHECKS
from .token_checks import TOKEN_CHECKS

UNDER_TEST = "a_heuristic_that_is_being_tested"


@dataclass(frozen=True, slots=True)
class HeuristicCheck:
    """One thing that every heuristic of a kind must hold; call it with a heuristic.

    Args:
        function: The check.
    """

    function: Callable[[Any], None]

    def __call__(self, heuristic: Heuristic) -> None:
        """Try it.

        Raises:
            AssertionError: If the heuristic breaks it.
        """
        self.function(heuristic)

    def __str__(self) -> str:
        """The rule as a sentence."""
        return self.function.__name__.replace("_", " ")


def check_heuristic(heuristic: Heuristic) -> None:
    """Try everything that a heuristic must hold, with the first failure as the message.

    Args:
        heuristic: A heuristic object, which need not be registered.

    Raises:
        AssertionError: If it breaks a rule; the message names it, what is wrong, and what it was
            shown.
        TypeError: If it is no heuristic.
    """
    for check in heuristic_checks(type(heuristic)):
        check(heuristic)


def heuristic_checks(kind: type) -> tuple[HeuristicCheck, ...]:
    """Everything that a heuristic must hold, one check each.

    Args:
        kind: The class to be tested, or the kind that it extends: ``TokenHeuristic``,
            ``RunningHeuristic``, ``RereadingHeuristic``, ``CacheHeuristic`` or
            ``ProbeHeuristic``.

    Raises:
        TypeError: If it is no heuristic.
    """
    if not isinstance(kind, type) or not issubclass(kind, TokenHeuristic | CacheHeuristic):
        raise TypeError(
            f"`kind` must be a subclass of TokenHeuristic or CacheHeuristic, but got {kind!r:.80}."
        )
    functions = [each for base, checks in CHECKS if issubclass(kind, base) for each in checks]
    return tuple(HeuristicCheck(each) for each in (*COMMON_CHECKS, *functions))


def it_is_a_frozen_value_that_needs_no_arguments(heuristic: Heuristic) -> None:
    """A frozen dataclass with defaults, equal to its copies."""
    require_frozen_value(heuristic)


def its_settings_can_be_written_to_a_file(heuristic: Heuristic) -> None:
    """A saved profile or plan names it, and builds an equal one from its settings."""
    name = type(heuristic).__name__
    try:
        with registration_scope():
            register(UNDER_TEST)(type(heuristic))
            again = build(UNDER_TEST, settings_of(heuristic))
    except Exception as error:
        raise AssertionError(f"{name} failed: {raised(error)}.") from error
    fault = f"from its settings {settings_of(heuristic)} another one is built, {again!r}"
    require(again == heuristic, f"{name} failed: {fault}.")


COMMON_CHECKS: tuple[Callable[[Heuristic], None], ...] = (
    it_is_a_frozen_value_that_needs_no_arguments,
    its_settings_can_be_written_to_a_file,
)
CHECKS: tuple[tuple[type, tuple[Callable[[Any], None], ...]], ...] = (
    (TokenHeuristic, TOKEN_CHECKS),
    (RunningHeuristic, RUNNING_CHECKS),
    (RereadingHeuristic, REREADING_CHECKS),
    (CacheHeuristic, CACHE_CHECKS),
    (ProbeHeuristic, PROBE_CHECKS),
)
