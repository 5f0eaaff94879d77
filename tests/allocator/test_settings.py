import pytest

from kvbudget.allocator.settings import call_text, check_settings


def test_lists_of_pairs_become_tuples() -> None:
    assert check_settings([["window", 32], ("kernel", 7)]) == (("window", 32), ("kernel", 7))
    assert check_settings(()) == ()


@pytest.mark.parametrize("value", ["ab", 3, None, ["ab"], [("a", 1, 2)], [("a", None)], [(1, 1)]])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="`heuristic_settings` must"):
        check_settings(value)


def test_a_name_may_stand_once() -> None:
    with pytest.raises(ValueError, match="must name each setting once"):
        check_settings([("a", 1), ("a", 1)])


def test_a_heuristic_reads_as_a_call() -> None:
    assert call_text("key_norm", ()) == "key_norm()"
    assert call_text("a", (("x", 1), ("y", "z"))) == "a(x=1, y='z')"
