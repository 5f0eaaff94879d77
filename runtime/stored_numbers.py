"""The numbers that a parameter is stored as."""

from collections.abc import Iterator

from torch import Tensor


def stored_numbers(parameter: Tensor) -> Iterator[Tensor]:
    """The plain tensors behind a parameter.

    One that is in memory as it is, is itself; one that is quantised has codes and scales, and one
    that is divided over processes the part that is here.
    """
    flatten = getattr(parameter, "__tensor_flatten__", None)
    if flatten is None:
        yield parameter.detach()
        return
    names, _ = flatten()
    for name in names:
        yield from stored_numbers(getattr(parameter, name))
