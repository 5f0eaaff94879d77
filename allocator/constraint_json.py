"""Constraints in files: their name and their fields, never code."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from numbers import Integral
from typing import Any

from . import constraints as home
from .budget import Tokens
from .constraint import Constraint
from .json_fields import read_field
from .settings import call_text

KNOWN: dict[str, type[Any]] = {name: getattr(home, name) for name in home.__all__}


def can_write(constraint: Constraint) -> bool:
    """Whether a file can hold a constraint: one of ours whose fields are plain data."""
    if KNOWN.get(type(constraint).__name__) is not type(constraint):
        return False
    return all(is_plain(value) for _, value in field_values(constraint))


def constraint_to_json(constraint: Constraint) -> dict[str, object]:
    """The name and the fields of a constraint as JSON types.

    Args:
        constraint: One that :func:`can_write` accepts.
    """
    pairs = ((name, value_to_json(value)) for name, value in field_values(constraint))
    return {"name": type(constraint).__name__, **dict(pairs)}


def constraint_from_json(record: object) -> Constraint:
    """Read what :func:`constraint_to_json` wrote.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If the record is no object, the name is unknown, or a field is unknown,
            missing or out of range.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a constraint must be an object, but is {record!r:.60}")
    name = read_field(record, "name", str)
    kind = KNOWN.get(name)
    if kind is None:
        raise ValueError(f"the constraint {name!r:.60} is not known")
    return build(kind, {key: value for key, value in record.items() if key != "name"})


def describe(constraint: Constraint) -> str:
    """One constraint in words, such as ``"LeastTokens(tokens=64)"``."""
    name = type(constraint).__name__
    if not can_write(constraint):
        return name
    given = [(key, value) for key, value in field_values(constraint) if value is not None]
    return call_text(name, tuple(given))


def build(kind: type[Any], values: Mapping[str, object]) -> Constraint:
    """Make a constraint of a known class from the JSON values of its fields.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a field is unknown, missing or out of range.
    """
    known = {each.name: each for each in fields(kind)}
    for name in values:
        if name not in known:
            raise ValueError(f"the constraint {kind.__name__} has no field `{name:.60}`")
    for name, each in known.items():
        if each.default is MISSING and name not in values:
            raise ValueError(f"the constraint {kind.__name__} needs the field `{name}`")
    made: Constraint = kind(**{name: value_from_json(value) for name, value in values.items()})
    return made


def field_values(constraint: Constraint) -> list[tuple[str, Any]]:
    """Names and values of a constraint's fields."""
    if not is_dataclass(constraint):
        return []
    return [(each.name, getattr(constraint, each.name)) for each in fields(constraint)]


def is_plain(value: object) -> bool:
    """Whether a field can be written: a number, a text, indices, tokens, or nothing."""
    if isinstance(value, tuple):
        return all(isinstance(each, int) for each in value)
    return value is None or isinstance(value, Integral | str | Tokens)


def value_to_json(value: Any) -> object:
    """A plain field as a JSON type."""
    if isinstance(value, Tokens):
        return {"tokens": value.count}
    if isinstance(value, Integral):
        return int(value)
    return list(value) if isinstance(value, tuple) else value


def value_from_json(value: object) -> object:
    """A field from its JSON type; the constraint checks it.

    Raises:
        TypeError: If a number of tokens is not an integer.
        ValueError: If an object is not a number of tokens.
    """
    if isinstance(value, dict):
        return Tokens(read_field(value, "tokens", int))
    return tuple(value) if isinstance(value, list) else value
