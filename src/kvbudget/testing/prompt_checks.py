"""What a heuristic must hold that says what the model reads: a second time, or instead."""

import random
from collections.abc import Callable
from functools import partial

from kvbudget.heuristics import (
    Part,
    Probe,
    ProbeHeuristic,
    RereadingHeuristic,
    checked_parts,
    checked_probe,
)

from .answers import require
from .asking import asked, blame

LENGTHS = (1, 2, 9, 40, 300)
POSITIONS_LEFT = (0, 3, 30, 400)
PROMPT_VOCABULARY, ANY_VOCABULARY = 97, 1 << 20
"""Tokens of the prompts, and of a model that knows every token a heuristic may bring along."""


def its_parts_judge_every_token_and_can_be_read(heuristic: RereadingHeuristic) -> None:
    """Whatever the prompt's length; too few positions for them may be refused."""
    for length in LENGTHS:
        for positions in (None, *POSITIONS_LEFT):
            few = "" if positions is None else f" and {positions} positions left"
            what = f"a prompt of {length} tokens{few}"
            prompt = _prompt(length)
            if positions is not None and _refuses(partial(heuristic.parts, prompt, positions)):
                continue
            question = partial(_parts, heuristic, positions)
            first = asked(heuristic, what, question, prompt)
            fault = "its parts differ each time"
            require(
                first == asked(heuristic, what, question, prompt), blame(heuristic, what, fault)
            )


def its_probe_can_be_read_and_follows_its_seed(heuristic: ProbeHeuristic) -> None:
    """A probe is no longer than the prompt; too short a prompt may be refused."""
    for length in LENGTHS:
        what, prompt = f"a prompt of {length} tokens", _prompt(length)
        made = partial(heuristic.probe, prompt, PROMPT_VOCABULARY, random.Random(0))
        if length < LENGTHS[-1] and _refuses(made):
            continue
        question = partial(_probe, heuristic)
        first = asked(heuristic, what, question, prompt)
        fault = "its probes differ for one seed"
        require(first == asked(heuristic, what, question, prompt), blame(heuristic, what, fault))


def _prompt(length: int) -> tuple[int, ...]:
    return tuple(random.Random(length).choices(range(PROMPT_VOCABULARY), k=length))


def _parts(
    heuristic: RereadingHeuristic, positions: int | None, prompt: tuple[int, ...]
) -> list[Part]:
    return checked_parts(heuristic, prompt, positions, ANY_VOCABULARY)


def _probe(heuristic: ProbeHeuristic, prompt: tuple[int, ...]) -> Probe:
    return checked_probe(heuristic, prompt, PROMPT_VOCABULARY, random.Random(0))


def _refuses(question: Callable[[], object]) -> bool:
    try:
        question()
    except ValueError:
        return True
    except Exception:
        # asked again it fails again, and is blamed
        return False
    return False


REREADING_CHECKS = (its_parts_judge_every_token_and_can_be_read,)
PROBE_CHECKS = (its_probe_can_be_read_and_follows_its_seed,)
