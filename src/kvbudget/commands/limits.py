"""Constraints and risks as they are typed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kvbudget.allocator import Budget, Constraint, CVaR, Mean, Risk, WorstSample
from kvbudget.allocator.constraints import (
    ByteLimit,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
    Protected,
    WholePages,
)

from .named import read_budget

MOST_INDEX = 9999
_PART = re.compile(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the options of a command ask for; `None` and empty ask for nothing.

    Args:
        least_tokens: Least capacity of each cache.
        most_tokens: Most capacity of each cache.
        protect_layer: Layers that are never cut.
        equal_in_layer: Whether all KV heads of a layer keep equally many tokens.
        page_tokens: Tokens of a page.
        layer_budget: Such as `0-15=2GiB`.
        head_budget: Such as `0-1=1GiB`.
        most_capacities: Most different capacities.
    """

    least_tokens: int | None = None
    most_tokens: int | None = None
    protect_layer: list[int] | None = None
    equal_in_layer: bool = False
    page_tokens: int | None = None
    layer_budget: list[str] | None = None
    head_budget: list[str] | None = None
    most_capacities: int | None = None

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints they are.

        Raises:
            ValueError: One cannot be read.
        """
        return tuple(self._each())

    def _each(self) -> Iterator[Constraint]:
        if self.least_tokens is not None:
            yield LeastTokens(self.least_tokens)
        if self.most_tokens is not None:
            yield MostTokens(self.most_tokens)
        if self.protect_layer:
            yield Protected(layers=tuple(self.protect_layer))
        if self.equal_in_layer:
            yield EqualInLayer()
        if self.page_tokens is not None:
            yield WholePages(self.page_tokens)
        for text in self.layer_budget or ():
            layers, budget = read_share("--layer-budget", text)
            yield ByteLimit(budget, layers=layers)
        for text in self.head_budget or ():
            kv_heads, budget = read_share("--head-budget", text)
            yield ByteLimit(budget, kv_heads=kv_heads)
        if self.most_capacities is not None:
            yield MostCapacities(self.most_capacities)


def read_share(option: str, text: str) -> tuple[tuple[int, ...], Budget]:
    """Read `0-15=2GiB` or `0,3-5=25%`: indices, and what they may use together.

    Raises:
        ValueError: It reads otherwise.
    """
    which, equals, budget = text.partition("=")
    matches = [_PART.fullmatch(part) for part in which.split(",")]
    if not equals or None in matches:
        raise ValueError(
            f"`{option}` must read like 0-15=2GiB with numbers up to {MOST_INDEX},"
            f" but got {text!r:.60}."
        )
    ranges = [(int(m[1]), int(m[2] or m[1])) for m in matches if m]
    for first, last in ranges:
        if first > last:
            raise ValueError(f"`{option}` must count up, but got {first}-{last}.")
    indices = sorted({i for first, last in ranges for i in range(first, last + 1)})
    return tuple(indices), read_budget(budget, option)


def read_risk(text: str) -> Risk:
    """Read `mean`, `worst`, `cvar` or `cvar:0.9`.

    Raises:
        ValueError: It is none of them, or the level is out of range.
    """
    name, colon, level = text.strip().lower().partition(":")
    known: dict[str, Risk] = {"mean": Mean(), "worst": WorstSample(), "cvar": CVaR()}
    if name not in known or (colon and name != "cvar"):
        raise ValueError(f"`--risk` must be mean, worst, or cvar:0.9, but got {text!r:.60}.")
    if not colon:
        return known[name]
    try:
        return CVaR(float(level))
    except ValueError:
        raise ValueError(
            f"`--risk` must have a share of at least 0 and below 1 behind cvar:,"
            f" but got {text!r:.60}."
        ) from None
