"""What a search makes small: a number measured for a plan."""

from collections.abc import Callable, Iterator
from functools import partial

from kvbudget.allocator.plan import Plan

Objective = Callable[[Plan], float | Iterator[float]]
"""From a plan to a number, lower is better, such as a perplexity.

A generator function may yield better and better estimates of it, such as the perplexity of the
first prompt, of the first two, and so on. The last one counts. A plan that does worse than half
of the others up to the same step is then given up early.
"""


def name_of(objective: Objective | None) -> str:
    """Name of what is measured, by which a study knows its objective again.

    Args:
        objective: A function has its own name, ``functools.partial`` that of its function, and
            any other object that of its class. ``None`` is the predicted loss.
    """
    if objective is None:
        return "the predicted loss"
    # a partial of a partial is one partial
    if isinstance(objective, partial):
        objective = objective.func
    named = getattr(objective, "__qualname__", type(objective).__qualname__)
    module = getattr(objective, "__module__", type(objective).__module__)
    return f"{module}.{named}"


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
