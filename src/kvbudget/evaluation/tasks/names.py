"""Random names and values, in the forms that the shipped model was trained on."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from kvbudget.needles import NAMES

Row = TypeVar("Row")


def distinct(draw: Callable[[], str], count: int) -> list[str]:
    """So many draws, none of which comes twice."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw()] = None
    return list(found)


def draw_who(rng: random.Random) -> str:
    """One name or two."""
    return rng.choice(NAMES) + (f"-{rng.choice(NAMES)}" if rng.random() < 0.5 else "")


def draw_digits(rng: random.Random) -> str:
    """A number of 4 to 6 digits."""
    return "".join(rng.choice("0123456789") for _ in range(rng.choice((4, 5, 6))))


def draw_hex(rng: random.Random) -> str:
    """A word of 4, 6 or 8 digits to the base 16."""
    return "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((4, 6, 8))))


def draw_shares(rng: random.Random, count: int) -> list[float]:
    """Places in 0..1, one in each of so many equal parts, in random order."""
    shares = [(part + rng.random()) / count for part in range(count)]
    return rng.sample(shares, count)


def picked(rows: Sequence[Row], shares: Sequence[float]) -> list[Row]:
    """The rows that lie at some shares of all of them."""
    return [rows[int(share * len(rows))] for share in shares]
