from typing import Any

import pytest

from kvbudget.allocator import CacheShape
from kvbudget.allocator.cache_shape import check_shapes, describe_shapes, largest


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ((0, 1, 1), ValueError, "`kv_heads` must be at least 1, but got kv_heads=0."),
        ((1, 2.0, 1), TypeError, "`head_dim` must be an integer, but got 2.0."),
        ((1, 1, 2**41), ValueError, "`value_dim` must be at most"),
    ],
)
def test_a_bad_number_is_refused(values: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        CacheShape(*values)
    assert message in str(caught.value)


def test_the_largest_shape_is_the_largest_in_every_way() -> None:
    assert largest([CacheShape(8, 4, 2), CacheShape(2, 6, 3)]) == CacheShape(8, 6, 3)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("ab", TypeError, "must be a tuple with one CacheShape per layer or None, but got 'ab'."),
        ([(1, 2, 3), (1, 2, 3)], TypeError, "must hold CacheShapes, but got (1, 2, 3)."),
        ([CacheShape(1, 2, 3)], ValueError, "one entry per layer, but got 1 for 2 layers."),
    ],
)
def test_shapes_that_do_not_belong_are_refused(
    value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        check_shapes(value, 2)
    assert message in str(caught.value)


def test_shapes_are_counted_in_words() -> None:
    shapes = [CacheShape(8, 4, 4), CacheShape(2, 8, 6), CacheShape(8, 4, 4)]
    text = "2 with 8 KV heads, head size 4; 1 with 2 KV heads, key size 8, value size 6"
    assert describe_shapes(shapes) == text
    assert describe_shapes([CacheShape(1, 2, 2)]) == "1 with 1 KV head, head size 2"
