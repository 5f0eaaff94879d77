"""Budgets as people write them, turned into bytes."""

import re
from dataclasses import dataclass
from fractions import Fraction

from .checks import as_int, check_count
from .geometry import Geometry

UNITS = {
    "B": 1,
    **{"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40},
    **{"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
}
EXAMPLES = "such as '2GiB', '512MiB', '1.5GB' or '25%'"
PATTERN = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(%|[A-Za-z]+)\s*")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A budget in tokens: the mean number that each cache may keep.

    Where the tokens of layers differ in bytes, it is what so many tokens in every cache take.

    Args:
        count: Mean tokens per cache, at least 1.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.
    """

    count: int

    def __post_init__(self) -> None:
        """Check the count."""
        object.__setattr__(self, "count", check_count("count", self.count))

    def __str__(self) -> str:
        """The budget in words."""
        return f"{self.count} tokens per cache"


Budget = int | str | Tokens


def parse_budget(budget: Budget, geometry: Geometry, context_tokens: int, batch_size: int) -> int:
    """Return a budget in bytes, at least 1; fractions of a byte are dropped.

    Args:
        budget: Bytes as an int; a string with a unit (``"2GiB"`` is binary, ``"1.5GB"``
            decimal); a share of the full cache (``"25%"``); or ``Tokens(1024)``.
        geometry: The caches of the model.
        context_tokens: Longest context in tokens; a share is a share of this much cache.
        batch_size: Sequences that share the budget.

    Raises:
        TypeError: If the budget is of another type.
        ValueError: If it cannot be read, is below one byte, or is above 100 %.
    """
    return to_bytes(
        budget,
        full_bytes=geometry.full_bytes(context_tokens, batch_size),
        token_bytes=geometry.bytes_of([1] * geometry.layers, batch_size),
    )


def to_bytes(budget: Budget, *, full_bytes: int, token_bytes: int) -> int:
    """Return a budget in bytes.

    Args:
        budget: A budget in any form.
        full_bytes: Bytes of all caches in question when nothing is evicted, for shares.
        token_bytes: Bytes of one token in each of these caches, for ``Tokens``.

    Raises:
        TypeError: If the budget is of another type.
        ValueError: If it cannot be read, is below one byte, or is above 100 %.
    """
    if isinstance(budget, Tokens):
        return budget.count * token_bytes
    if isinstance(budget, str):
        return parse_text(budget, full_bytes)
    try:
        num_bytes = as_int("budget", budget)
    except TypeError:
        raise TypeError(
            f"`budget` must be an int of bytes, Tokens(...), or a string {EXAMPLES},"
            f" but got {budget!r:.60}."
        ) from None
    if num_bytes < 1:
        raise ValueError(f"`budget` must be at least 1 byte, but got {num_bytes}.")
    return num_bytes


def parse_text(text: str, full_bytes: int) -> int:
    """Return the bytes that a string names.

    Args:
        text: A number and a unit, such as ``"2 GiB"`` or ``"25%"``.
        full_bytes: Bytes of the full cache, for shares.

    Raises:
        ValueError: If the string cannot be read, is below one byte, or is above 100 %.
    """
    match = PATTERN.fullmatch(text)
    unit = match[2].upper() if match else ""
    if match is None or (unit != "%" and unit not in UNITS):
        raise ValueError(
            f"`budget` must be a number with a unit, {EXAMPLES}, but got {text!r:.60}."
        )
    amount = Fraction(match[1])
    if unit == "%" and amount > 100:
        raise ValueError(f"`budget` must be at most 100% of the full cache, but got {text!r:.60}.")
    num_bytes = int(amount * (Fraction(full_bytes, 100) if unit == "%" else UNITS[unit]))
    if num_bytes < 1:
        raise ValueError(f"`budget` must be at least 1 byte, but got {text!r:.60}.")
    return num_bytes
