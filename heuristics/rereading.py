"""Heuristics that let the model read a prompt a second time before it is cut."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .heuristic import RunningHeuristic

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of a second reading.

    Args:
        first: Index of the first token of the prompt that it judges.
        last: Index behind the last one.
        beside: How many of the prompt's first tokens share its attention without being judged.
        ids: Token ids that the model reads behind the prompt.
    """

    first: int
    last: int
    beside: int
    ids: tuple[int, ...]


class RereadingHeuristic(RunningHeuristic):
    """A running heuristic that judges a prompt by a second reading of it.

    Behind the whole prompt, the model reads what ``parts`` tells. Every part is read as if it
    followed the prompt at once and knows nothing of the other parts. ``observe`` is shown the
    queries of each part, over the tokens that it judges, those beside them and the part itself;
    the queries of the first reading it never sees. Tokens that come after the prompt are shown to
    it as to any running heuristic.
    """

    __slots__ = ()

    @abstractmethod
    def parts(self, prompt: Sequence[int], positions: int | None) -> list[Part]:
        """Say what the model reads behind a prompt, and which tokens that judges.

        Args:
            prompt: Token ids.
            positions: Most tokens the model can read behind the prompt; None for any number.

        Returns:
            Parts that judge every token of the prompt once, in order.

        Raises:
            ValueError: If there are too few positions.
        """


def checked_parts(
    heuristic: RereadingHeuristic, prompt: Sequence[int], positions: int | None, vocabulary: int
) -> list[Part]:
    """Ask a heuristic for its parts and hold it to its contract.

    Raises:
        ValueError: If the parts leave a token out or judge one twice, or a part is empty, too
            long for the model, or holds a token that the model lacks.
    """
    parts = heuristic.parts(prompt, positions)
    subject = f"`parts` of {type(heuristic).__name__}"
    judged = [index for part in parts for index in range(part.first, part.last)]
    if judged != list(range(len(prompt))):
        raise ValueError(
            f"{subject} must judge every one of {len(prompt)} tokens once, in order, but got "
            f"{[(part.first, part.last) for part in parts]!r:.80}."
        )
    for part in parts:
        if not part.ids or (positions is not None and len(part.ids) > positions):
            raise ValueError(
                f"{subject} must hold 1 to {positions} tokens each, but got {len(part.ids)}."
            )
        if not 0 <= min(part.ids) <= max(part.ids) < vocabulary:
            raise ValueError(
                f"{subject} must hold tokens in 0..{vocabulary - 1}, but got "
                f"{min(part.ids)}..{max(part.ids)}."
            )
        if not 0 <= part.beside <= part.first:
            raise ValueError(
                f"{subject} must have between 0 and {part.first} tokens beside those it judges, "
                f"but got {part.beside}."
            )
    return parts
