import numpy as np
import pytest

from kvbudget.allocator import Problem
from kvbudget.allocator.caches import capacity_of, check_indices, mask, name_caches, select


def test_indices_are_sorted_and_kept_once() -> None:
    assert check_indices("layers", [3, 1, 3]) == (1, 3)
    assert check_indices("layers", range(2)) == (0, 1)
    assert check_indices("layers", (index for index in (np.int64(4), 2))) == (2, 4)
    assert check_indices("layers", None) is None


@pytest.mark.parametrize("value", [3, "12", 1.5, object()])
def test_what_is_no_list_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="`layers` must be a list of indices or None, but got"):
        check_indices("layers", value)  # type: ignore[arg-type]


def test_indices_must_be_counts() -> None:
    with pytest.raises(ValueError, match="`heads` must be at least 0, but got heads=-1"):
        check_indices("heads", [0, -1])
    with pytest.raises(TypeError, match="`heads` must be an integer, but got True"):
        check_indices("heads", [True])
    with pytest.raises(ValueError, match="`heads` must name at least one, but is empty"):
        check_indices("heads", [])


def test_units_are_those_of_both_layer_and_head(problem: Problem) -> None:
    assert np.flatnonzero(select(problem, (0, 2), None)).tolist() == [0, 1, 4, 5]
    assert np.flatnonzero(select(problem, None, (1,))).tolist() == [1, 3, 5]
    assert np.flatnonzero(select(problem, (1,), (0,))).tolist() == [2]
    assert select(problem, None, None).all()


def test_units_of_arrays_are_layers() -> None:
    problem = Problem([[1.0]] * 3, [[1]] * 3, 9)
    assert select(problem, (1,), (0,)).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"`kv_heads` must be in 0\.\.0, but got 1"):
        select(problem, None, (1,))


def test_an_index_beyond_the_model_is_refused() -> None:
    assert mask("layers", (0, 3), 4).tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match=r"`layers` must be in 0\.\.3, but got 4"):
        mask("layers", (0, 4), 4)


def test_a_selection_has_a_name() -> None:
    assert name_caches((0, 1), None) == "layers 0, 1"
    assert name_caches(None, (2,)) == "KV heads 2"
    assert name_caches((0,), (1,)) == "layers 0 and KV heads 1"
    assert name_caches(None, None) == "all caches"


def test_only_a_profile_knows_tokens(problem: Problem) -> None:
    assert capacity_of(problem, "LeastTokens")[0].tolist() == [10, 25, 50, 100]
    with pytest.raises(ValueError, match="must not hold LeastTokens where a problem was made"):
        capacity_of(Problem([[1.0]], [[1]], 1), "LeastTokens")
