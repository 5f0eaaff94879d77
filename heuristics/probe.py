"""Synthetic prompts that make a model look tokens up, so that one sees which heads do it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .heuristic import CacheHeuristic

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

LEAST_PROMPT_TOKENS = 8
"""Tokens of the shortest prompt that something can be hidden in."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt in which some tokens repeat earlier ones.

    Args:
        tokens: Token ids.
        copied_from: For each token the index of the earlier token that it repeats, or -1.

    Raises:
        ValueError: If there is not one entry per token, or one does not lead to an earlier token
            of the same id.
    """

    tokens: tuple[int, ...]
    copied_from: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check every entry."""
        if len(self.copied_from) != len(self.tokens):
            raise ValueError(
                f"`copied_from` must hold one entry per token, {len(self.tokens)}, but got "
                f"{len(self.copied_from)}."
            )
        for index, source in enumerate(self.copied_from):
            if source == -1:
                continue
            if not 0 <= source < index or self.tokens[source] != self.tokens[index]:
                raise ValueError(
                    "`copied_from` must lead to an earlier token of the same id or be -1, but got "
                    f"{source} at token {index}."
                )


class ProbeHeuristic(CacheHeuristic):
    """A cache heuristic that watches the model read a synthetic prompt.

    ``importance`` then finds ``view.copied_from``. Each of the user's prompts gives one probe.
    """

    __slots__ = ()

    @abstractmethod
    def probe(self, prompt: Sequence[int], vocabulary: int, draw: random.Random) -> Probe:
        """Make the prompt that the model is shown instead of the user's.

        Args:
            prompt: Token ids of the user's prompt. A probe is never longer, so the model can read
                it.
            vocabulary: Number of tokens that the model knows.
            draw: Source of everything random: the same seed gives the same probes.
        """


def checked_probe(
    heuristic: ProbeHeuristic, prompt: Sequence[int], vocabulary: int, draw: random.Random
) -> Probe:
    """Ask for a probe and hold it to its contract.

    Raises:
        TypeError: If the answer is no Probe.
        ValueError: If it is empty, longer than the prompt, or holds a token the model lacks.
    """
    probe: object = heuristic.probe(prompt, vocabulary, draw)
    subject = f"`probe` of {type(heuristic).__name__}"
    if not isinstance(probe, Probe):
        raise TypeError(f"{subject} must return a Probe, but got {type(probe).__name__}.")
    if not 0 < len(probe.tokens) <= len(prompt):
        raise ValueError(
            f"{subject} must return 1 to {len(prompt)} tokens, as many as the prompt has, but got "
            f"{len(probe.tokens)}."
        )
    if not 0 <= min(probe.tokens) <= max(probe.tokens) < vocabulary:
        raise ValueError(
            f"{subject} must return tokens in 0..{vocabulary - 1}, but got "
            f"{min(probe.tokens)}..{max(probe.tokens)}."
        )
    return probe


def random_tokens(count: int, vocabulary: int, draw: random.Random) -> list[int]:
    """Random token ids, all different as far as the vocabulary reaches."""
    found: list[int] = []
    while len(found) < count:
        found += draw.sample(range(vocabulary), min(count - len(found), vocabulary))
    return found


def hide(prompt: Sequence[int], needles: Sequence[Sequence[int]], draw: random.Random) -> Probe:
    """Hide needles at random depths of a prompt, and repeat them all at its end.

    The prompt loses its last tokens, so that the probe is as long as the prompt was. Its first
    token stays first. The first token of a repeated needle is what tells which needle it is.

    Args:
        prompt: Token ids of the haystack.
        needles: Token ids of each needle, less than half of the prompt together.
        draw: Source of everything random.
    """
    hay = list(prompt[: len(prompt) - 2 * sum(map(len, needles))])
    depths = sorted(draw.randint(1, len(hay)) for _ in needles)
    tokens: list[int] = []
    starts = []
    for needle, start, end in zip(needles, [0, *depths], depths, strict=False):
        tokens += hay[start:end]
        starts.append(len(tokens))
        tokens += needle
    tokens += hay[depths[-1] :]
    copied_from = [-1] * len(tokens)
    for index in draw.sample(range(len(needles)), len(needles)):
        tokens += needles[index]
        copied_from += range(starts[index], starts[index] + len(needles[index]))
    return Probe(tuple(tokens), tuple(copied_from))


def needle_sizes(prompt: Sequence[int], needles: int, needle_tokens: int) -> tuple[int, int]:
    """How many needles of what length a prompt can hide: a quarter of it at most.

    Returns:
        Number of needles and tokens of each; fewer, and shorter ones, in a short prompt.

    Raises:
        ValueError: If the prompt is too short for the shortest needle.
    """
    if len(prompt) < LEAST_PROMPT_TOKENS:
        raise ValueError(
            f"`prompt` must have at least {LEAST_PROMPT_TOKENS} tokens to hide something in it, "
            f"but got {len(prompt)}."
        )
    room = len(prompt) // 4
    return max(1, min(needles, room // needle_tokens)), min(needle_tokens, room)
