"""Arrays held by frozen values: copied, checked, read-only, compared by content."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AXIS_NAMES = {
    "samples": "sample",
    "layers": "layer",
    "kv_heads": "KV head",
    "levels": "level",
    "units": "unit",
    "plans": "plan",
}
WHOLE_FLOATS = 2.0**53


def float_array(
    name: str, value: ArrayLike, axes: tuple[str, ...], *, infinite: bool = False
) -> Floats:
    """Return a read-only float64 copy of ``value``, which must be finite with these axes.

    Args:
        name: Name of the argument, for messages.
        value: Numbers of any real type.
        axes: Names of the axes, such as ``("layers", "kv_heads")``.
        infinite: Whether values may be infinite, though never NaN.

    Raises:
        TypeError: If the values are not real numbers.
        ValueError: If an axis is missing or empty, or a value is NaN or infinite.
    """
    array = to_array(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must hold real numbers, but holds {array.dtype}.")
    check_axes(name, array, axes)
    copy = np.array(array, dtype=np.float64, order="C")
    faulty, rule = (
        (np.isnan(copy), "must not be NaN") if infinite else (~np.isfinite(copy), "must be finite")
    )
    refuse(name, copy, faulty, axes, rule)
    copy.flags.writeable = False
    return copy


def int_array(name: str, value: ArrayLike, axes: tuple[str, ...]) -> Ints:
    """Return a read-only int64 copy of ``value``, which must hold whole numbers.

    Args:
        name: Name of the argument, for messages.
        value: Integers, or floats without a fraction.
        axes: Names of the axes, such as ``("units", "levels")``.

    Raises:
        TypeError: If the values are not numbers.
        ValueError: If an axis is missing or empty, or a value is not whole or too large.
    """
    array = to_array(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must hold integers below 2**63, but holds {array.dtype}.")
    check_axes(name, array, axes)
    if array.dtype.kind == "f":
        fits = (np.abs(array) < WHOLE_FLOATS) & (array == np.round(array))
        refuse(name, array, ~fits, axes, "must be whole numbers below 2**53")
    copy = np.array(array, dtype=np.int64, order="C")
    refuse(name, array, copy != array, axes, "must be below 2**63")
    copy.flags.writeable = False
    return copy


def to_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return ``value`` as an array of whatever type it has.

    Raises:
        ValueError: If its rows have different lengths.
    """
    try:
        return np.asarray(value)
    except (ValueError, OverflowError):
        raise ValueError(f"`{name}` must be a rectangular array, but its rows differ.") from None


def check_axes(name: str, array: NDArray[Any], axes: tuple[str, ...]) -> None:
    """Refuse an array with another number of axes, or an empty one.

    Raises:
        ValueError: If the array has not exactly these axes, each at least 1 long.
    """
    if array.ndim != len(axes) or 0 in array.shape:
        wanted = ", ".join(axes)
        raise ValueError(
            f"`{name}` must have the shape [{wanted}] with no empty axis, but got {array.shape}."
        )


def refuse(
    name: str,
    array: NDArray[Any],
    faulty: NDArray[np.bool_],
    axes: tuple[str, ...],
    rule: str,
) -> None:
    """Raise for the first faulty element, naming its value and its place.

    Raises:
        ValueError: If any element is faulty.
    """
    if faulty.any():
        place = tuple(int(i) for i in np.argwhere(faulty)[0])
        words = ", ".join(f"{AXIS_NAMES.get(a, a)} {i}" for a, i in zip(axes, place, strict=True))
        raise ValueError(f"`{name}` {rule}, but got {array[place]} at {words}.")


def same_values(one: "DataclassInstance", other: object) -> bool:
    """Whether two values of one dataclass hold equal fields, arrays compared element-wise."""
    if type(one) is not type(other):
        return False
    return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one) if f.compare)


def same(one: object, other: object) -> bool:
    """Whether two fields are equal; arrays must agree in shape and in every element."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)
