"""What every plug-in must be: a frozen value that works without arguments."""

from dataclasses import is_dataclass

from .answers import require


def require_frozen_value(plugin: object) -> None:
    """Require a frozen dataclass with defaults, equal to its copies.

    Raises:
        AssertionError: If it is none.
    """
    name, cls = type(plugin).__name__, type(plugin)
    require(is_dataclass(plugin), f"{name} must be a dataclass, but is not one.")
    try:
        plain, twin = cls(), cls()
    except Exception as error:
        raise AssertionError(f"{name} must work without arguments, but: {error}.") from error
    require(plain == twin, f"{name} must equal a copy of itself, but does not.")
    hashes = cls.__hash__ is not None and not can_be_changed(plain)
    require(hashes, f"{name} must be a frozen dataclass, but can be changed.")


def can_be_changed(value: object) -> bool:
    """Whether an attribute of a value can be set."""
    names = [*getattr(value, "__dataclass_fields__", ()), "anything"]
    try:
        setattr(value, names[0], None)
    except (AttributeError, TypeError):
        return False
    return True
