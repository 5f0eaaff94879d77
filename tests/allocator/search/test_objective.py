"""Measured values."""

import math

import numpy as np
import pytest

from kvbudget.allocator.search.objective import to_number


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
