"""The suite also asks for the parts of a second reading, and for probes."""

import itertools
import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from torch import Tensor

from kvbudget.heuristics import (
    CacheView,
    Heuristic,
    LayerView,
    Part,
    Probe,
    ProbeHeuristic,
    RereadingHeuristic,
)
from kvbudget.testing import check_heuristic, heuristic_checks

CALLS = itertools.count()


class Rereads(RereadingHeuristic):
    """All but the parts."""

    channels: ClassVar[int] = 1

    def observe(self, view: LayerView) -> Tensor:
        return view.known_state(1) + view.total_attention().unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        return view.known_state(1)[..., 0] + view.held_values().norm(dim=-1)


class Probes(ProbeHeuristic):
    """All but the probe."""

    def importance(self, view: CacheView) -> Tensor:
        real = view.layer.valid.any(1)
        lengths = view.outputs().norm(dim=-1)
        rows = (lengths * real[:, None]).sum(-1) / real.sum(-1, keepdim=True)
        return view.layer.group_mean(rows).mean(0)


def reading(name: str, parts: Any) -> RereadingHeuristic:
    """An otherwise proper rereading heuristic with these ``parts``."""
    body = {"parts": lambda self, prompt, positions: parts(prompt, positions)}
    made: RereadingHeuristic = dataclass(frozen=True)(type(name, (Rereads,), body))()
    return made


def probing(name: str, probe: Any) -> ProbeHeuristic:
    """An otherwise proper probe heuristic with this ``probe``."""
    body = {"probe": lambda self, prompt, vocabulary, draw: probe(prompt, vocabulary, draw)}
    made: ProbeHeuristic = dataclass(frozen=True)(type(name, (Probes,), body))()
    return made


def whole(prompt: Any, positions: int | None) -> list[Part]:
    """The whole prompt again."""
    if positions is not None and len(prompt) > positions:
        raise ValueError("few")
    return [Part(0, len(prompt), 0, tuple(prompt))]


def varied(prompt: Any, positions: int | None) -> list[Part]:
    (part,) = whole(prompt, positions)
    return [replace(part, ids=(next(CALLS), *part.ids[1:]))]


def plain(tokens: tuple[int, ...]) -> Probe:
    return Probe(tokens, (-1,) * len(tokens))


BAD: list[tuple[Heuristic, str]] = [
    (reading("NoParts", lambda p, n: None), "it raised TypeError"),
    (reading("LastOut", lambda p, n: whole(p[:-1], n)), "must judge every one of 1 tokens"),
    (reading("TooLong", lambda p, n: whole(p, None)), "hold 1 to 0 tokens each, but got 1"),
    (
        reading("Refuses", lambda p, n: whole(p, 8 if n is None else n)),
        "it raised ValueError: few. It was shown a prompt of 9 tokens",
    ),
    (reading("Shuffles", varied), "its parts differ each time"),
    (probing("NoProbe", lambda p, v, d: None), "must return a Probe, but got NoneType"),
    (probing("Longer", lambda p, v, d: plain((*p, 1))), "must return 1 to 1 tokens"),
    (probing("Lacks", lambda p, v, d: plain((*p[1:], v))), r"tokens in 0..96, but got"),
    (probing("Unsure", lambda p, v, d: plain((random.randrange(v),))), "for one seed"),
    (probing("Never", lambda p, v, d: whole(p, 0)), "it raised ValueError: few"),
]


@pytest.mark.parametrize(("bad", "fault"), BAD, ids=[type(bad).__name__ for bad, _ in BAD])
def test_a_bad_heuristic_is_caught_by_its_last_check(bad: Heuristic, fault: str) -> None:
    with pytest.raises(AssertionError, match=rf"^{type(bad).__name__} failed: .*{fault}"):
        heuristic_checks(type(bad))[-1](bad)
    with pytest.raises(AssertionError, match=fault):
        check_heuristic(bad)


GOOD = (
    reading("Whole", whole),
    probing("Drawn", lambda p, v, d: plain(tuple(d.choices(range(v), k=len(p))))),
)


@pytest.mark.parametrize("good", GOOD, ids=["parts", "probe"])
def test_an_honest_heuristic_passes(good: Heuristic) -> None:
    assert check_heuristic(good) is None
