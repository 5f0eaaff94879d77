"""Measured values."""

import math
from functools import partial

import numpy as np
import pytest

from kvbudget.allocator import Plan
from kvbudget.allocator.search.objective import name_of, to_number


def loss_of(plan: Plan) -> float:
    return plan.loss


class Scaled:
    """An objective with a setting."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, plan: Plan) -> float:
        return self.scale * plan.loss

    def method(self, plan: Plan) -> float:
        return self(plan)


def test_an_objective_has_the_name_of_its_function_or_its_class() -> None:
    def inner(plan: Plan) -> float:
        return plan.loss

    here = __name__
    assert name_of(None) == "the predicted loss"
    assert name_of(loss_of) == f"{here}.loss_of"
    assert name_of(partial(partial(loss_of, 1), 2)) == f"{here}.loss_of"  # type: ignore[call-arg]
    assert name_of(Scaled()) == name_of(Scaled(2.0)) == f"{here}.Scaled"
    assert name_of(Scaled().method) == f"{here}.Scaled.method"
    assert name_of(inner).startswith(f"{here}.test_an_objective_has")
    assert name_of(inner).endswith(".<locals>.inner")


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2.0), True + 1])
def test_numbers_of_any_kind_become_floats(value: object) -> None:
    number = to_number(value)
    assert number == 2.0
    assert type(number) is float


def test_nan_and_infinity_are_passed_on() -> None:
    assert math.isnan(to_number(math.nan))
    assert to_number(math.inf) == math.inf


@pytest.mark.parametrize("value", [None, "two", [2.0], {}])
def test_other_things_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="`objective` must return a number or yield numbers"):
        to_number(value)
