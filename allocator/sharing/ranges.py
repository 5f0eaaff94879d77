"""Checks of settings that must lie in a range."""

import math

from kvbudget.allocator.checks import check_count, check_number


def check_range(name: str, value: object, least: float, most: float = math.inf) -> float:
    """Return a number as a float, or say why it is not in ``least..most``.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range or not finite.
    """
    number = check_number(name, value)
    if not least <= number <= most:
        rule = f"at least {least:g}" if most == math.inf else f"within {least:g}..{most:g}"
        raise ValueError(f"`{name}` must be {rule}, but got {name}={number:g}.")
    return number


def check_tokens(name: str, value: object) -> int:
    """Return a number of tokens as an int.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is negative.
    """
    return check_count(name, value, least=0)
