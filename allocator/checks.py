"""Checks of single arguments, so that every refusal reads alike."""

import math
import operator

INT64_LIMIT = 2**63 - 1


def check_count(name: str, value: object, *, least: int = 1, most: int = INT64_LIMIT) -> int:
    """Return ``value`` as an int, or say why it is not a whole number in ``least..most``.

    Raises:
        TypeError: If the value is not an integer; booleans and floats are refused.
        ValueError: If the value is out of range.
    """
    number = as_int(name, value)
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}, but got {name}={number}.")
    if number > most:
        raise ValueError(f"`{name}` must be at most {most}, but got {name}={number}.")
    return number


def as_int(name: str, value: object) -> int:
    """Return an integer of Python or NumPy as an int; refuse everything else.

    Raises:
        TypeError: If the value is a boolean, a float, or no number at all.
    """
    if isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer, but got {value!r}.")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, but got {value!r}.") from None


def check_number(name: str, value: object) -> float:
    """Return ``value`` as a float, or say why it is not a finite number.

    Raises:
        TypeError: If the value is not a number; booleans are refused.
        ValueError: If the value is NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"`{name}` must be a number, but got {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite, but got {name}={value}.")
    return float(value)


def check_text(name: str, value: object) -> str:
    """Return ``value`` if it is a string.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a string, but got {value!r}.")
    return value
