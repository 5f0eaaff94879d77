"""What a search makes small: a number measured for a plan."""

from collections.abc import Callable, Iterator

from kvbudget.allocator.plan import Plan

Objective = Callable[[Plan], float | Iterator[float]]
"""From a plan to a number, lower is better, such as a perplexity.

A generator function may yield better and better estimates of it, such as the perplexity of the
first prompt, of the first two, and so on. The last one counts. A plan that does worse than half
of the others up to the same step is then given up early.
"""


def to_number(value: object) -> float:
    """Return a measured value as a float.

    Raises:
        TypeError: If it is not a number.
    """
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(
            f"`objective` must return a number or yield numbers, but gave {value!r:.60}."
        ) from None
