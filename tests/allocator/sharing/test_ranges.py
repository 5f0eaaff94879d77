import pytest

from kvbudget.allocator.sharing.ranges import check_range, check_tokens


def test_numbers_in_range_are_returned_as_floats() -> None:
    assert check_range("alpha", 1, 0.0, 1.0) == 1.0
    assert check_range("beta", 1e9, 1.0) == 1e9
    assert check_tokens("window_tokens", 0) == 0


def test_numbers_out_of_range_are_refused_with_the_range() -> None:
    with pytest.raises(ValueError, match=r"`alpha` must be within 0\.\.1, but got alpha=1\.5"):
        check_range("alpha", 1.5, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"`beta` must be at least 1, but got beta=0\.5"):
        check_range("beta", 0.5, 1.0)
    with pytest.raises(ValueError, match="`beta` must be finite"):
        check_range("beta", float("inf"), 1.0)
    with pytest.raises(ValueError, match="`window_tokens` must be at least 0"):
        check_tokens("window_tokens", -1)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="`alpha` must be a number"):
        check_range("alpha", "much", 0.0)
    with pytest.raises(TypeError, match="`window_tokens` must be an integer"):
        check_tokens("window_tokens", 1.5)
