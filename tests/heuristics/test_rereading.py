"""What the parts of a second reading must be."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor

from kvbudget.heuristics import LayerView, Part, RereadingHeuristic, checked_parts

PROMPT = [5, 6, 7, 8]


@dataclass(frozen=True, slots=True)
class Fixed(RereadingHeuristic):
    """Reads what it is told to read."""

    given: tuple[Part, ...] = ()

    def parts(self, prompt: Sequence[int], positions: int | None) -> list[Part]:
        return list(self.given)

    def observe(self, view: LayerView) -> Tensor:
        return view.known_state(1)

    def score(self, view: LayerView) -> Tensor:
        return view.known_state(1)[..., 0]


def test_parts_that_judge_every_token_once_are_taken() -> None:
    parts = (Part(0, 3, 0, (1, 2)), Part(3, 4, 2, (9,)))
    assert checked_parts(Fixed(parts), PROMPT, 2, 10) == list(parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), r"every one of 4 tokens once, in order, but got \[\]"),
        ((Part(0, 3, 0, (1,)),), "every one of 4 tokens"),
        ((Part(0, 3, 0, (1,)), Part(2, 4, 0, (1,))), "every one of 4 tokens"),
        ((Part(2, 4, 0, (1,)), Part(0, 2, 0, (1,))), "every one of 4 tokens"),
        ((Part(0, 4, 0, ()),), "1 to 2 tokens each, but got 0"),
        ((Part(0, 4, 0, (1, 2, 3)),), "1 to 2 tokens each, but got 3"),
        ((Part(0, 4, 0, (1, 10)),), r"tokens in 0\.\.9, but got 1\.\.10"),
        ((Part(0, 4, 0, (-1, 1)),), r"tokens in 0\.\.9, but got -1\.\.1"),
        ((Part(0, 4, 1, (1,)),), "between 0 and 0 tokens beside those it judges, but got 1"),
        ((Part(0, 2, 0, (1,)), Part(2, 4, 3, (1,))), "between 0 and 2 .* but got 3"),
    ],
)
def test_other_parts_are_refused(parts: tuple[Part, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"`parts` of Fixed must .*{message}"):
        checked_parts(Fixed(parts), PROMPT, 2, 10)
