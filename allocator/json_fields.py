"""Typed access to the fields of a JSON object that came from a file."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

JSON_NAMES: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def read_field(record: Mapping[str, object], name: str, kind: type[T]) -> T:
    """Return the field ``name`` of ``record``, which must be of the JSON type ``kind``.

    Raises:
        ValueError: If the field is missing or of another type.
    """
    if name not in record:
        raise ValueError(f"the field `{name}` is missing")
    value = record[name]
    if kind is float and type(value) is int:
        value = to_float(name, value)
    # an exact comparison, because JSON's true and false are integers to isinstance
    if type(value) is not kind:
        raise ValueError(f"the field `{name}` must be {JSON_NAMES[kind]}, but is {value!r:.60}")
    return value


def to_float(name: str, value: int) -> float:
    """Return an integer of a JSON file as a float.

    Raises:
        ValueError: If it is beyond the range of floats.
    """
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"the field `{name}` is out of range") from None
