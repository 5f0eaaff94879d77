import math

import numpy as np
import pytest

from kvbudget.allocator.checks import as_int, check_count, check_number, check_text


def test_integers_of_any_kind_become_int() -> None:
    for value in (3, np.int32(3), np.uint8(3)):
        assert as_int("x", value) == 3
        assert type(as_int("x", value)) is int


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None])
def test_nothing_else_is_an_integer(value: object) -> None:
    with pytest.raises(TypeError, match="`x` must be an integer"):
        as_int("x", value)


def test_a_count_has_both_limits() -> None:
    assert check_count("x", 0, least=0) == 0
    assert check_count("x", 5, most=5) == 5
    with pytest.raises(ValueError, match=r"^`x` must be at least 1, but got x=0\.$"):
        check_count("x", 0)
    with pytest.raises(ValueError, match=r"^`x` must be at most 5, but got x=6\.$"):
        check_count("x", 6, most=5)


def test_a_number_is_finite_and_no_boolean() -> None:
    assert check_number("x", 3) == 3.0
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="`x` must be finite"):
            check_number("x", value)
    for wrong in (True, "3", None):
        with pytest.raises(TypeError, match="`x` must be a number"):
            check_number("x", wrong)


def test_text_is_a_string() -> None:
    assert check_text("x", "a") == "a"
    with pytest.raises(TypeError, match="`x` must be a string, but got b'a'"):
        check_text("x", b"a")
