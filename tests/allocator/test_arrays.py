import numpy as np
import pytest

from kvbudget.allocator.arrays import float_array, int_array, same

AXES = ("layers", "kv_heads")


def test_an_array_is_copied_and_read_only() -> None:
    value = np.ones((2, 2))
    for array in (float_array("a", value, AXES), int_array("a", value, AXES)):
        assert not np.shares_memory(array, value)
        assert not array.flags.writeable
        assert array.flags.c_contiguous


def test_a_fault_is_named_by_its_place() -> None:
    with pytest.raises(ValueError, match="`a` must be finite, but got nan at layer 1, KV head 0"):
        float_array("a", [[1, 2], [np.nan, np.nan]], AXES)


def test_large_integers_survive_exactly() -> None:
    assert int_array("a", [[2**62 + 1]], AXES)[0, 0] == 2**62 + 1
    with pytest.raises(ValueError, match="must be below 2"):
        int_array("a", np.array([[2**63]], dtype=np.uint64), AXES)


def test_arrays_are_the_same_only_in_shape_and_content() -> None:
    assert same(np.ones(3), np.ones(3))
    assert not same(np.ones(3), np.ones((1, 3)))
    assert not same(np.ones(3), np.zeros(3))
    assert same("a", "a")


def test_nothing_differs_from_an_array() -> None:
    array = np.zeros((2, 2))
    assert not same(None, array)
    assert not same(array, None)
    assert same(array, array.copy())
    assert same(None, None)
