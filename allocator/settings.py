"""Settings of a heuristic as plain data, so that files need not import its class."""

import math
from collections.abc import Iterable

from .checks import check_text

Setting = bool | int | float | str
Settings = tuple[tuple[str, Setting], ...]


def check_settings(value: object) -> Settings:
    """Return ``(name, value)`` pairs as tuples.

    Raises:
        TypeError: If it is not made of pairs, or a value is not a bool, int, float or string.
        ValueError: If a name appears twice or a value is NaN or infinite.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"`heuristic_settings` must be (name, value) pairs, but got {value!r:.60}.")
    pairs = tuple(check_setting(pair) for pair in value)
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"`heuristic_settings` must name each setting once, but got {names}.")
    return pairs


def check_setting(pair: object) -> tuple[str, Setting]:
    """Return one ``(name, value)`` pair as a tuple.

    Raises:
        TypeError: If it is not a pair of a string and a plain value.
        ValueError: If the value is NaN or infinite.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"`heuristic_settings` must be (name, value) pairs, but got {pair!r:.60}.")
    name, value = pair
    check_text("heuristic_settings", name)
    if not isinstance(value, bool | int | float | str):
        raise TypeError(
            "`heuristic_settings` must hold bools, numbers or strings,"
            f" but {name} is {value!r:.60}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`heuristic_settings` must be finite, but {name} is {value}.")
    return name, value


def call_text(name: str, settings: Settings) -> str:
    """Return a name and its settings as a call, such as ``key_norm()``."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in settings)})"
