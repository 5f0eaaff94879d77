import re

import numpy as np
import pytest

from kvbudget.allocator import Problem
from kvbudget.allocator.sharing.importance import (
    cache_importance,
    check_importance,
    layer_importance,
    of_units,
    per_cache,
    removable_loss,
)


def test_importance_becomes_nested_tuples() -> None:
    assert check_importance(np.array([[1, 2], [3, 4]])) == ((1.0, 2.0), (3.0, 4.0))
    assert check_importance([1, 0]) == (1.0, 0.0)
    assert check_importance(None) is None


@pytest.mark.parametrize("value", [[1.0, -1.0], [np.nan], [[np.inf]], [[1.0], [1.0, 2.0]], 3.0, []])
def test_importance_that_cannot_be_used_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="`variance` must"):
        check_importance(value, "variance")


def test_importance_that_is_no_number_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="`importance` must hold real numbers"):
        check_importance(["much", "little"])


def test_a_number_per_layer_holds_for_all_its_caches(problem: Problem) -> None:
    assert per_cache(problem, (1.0, 2.0, 0.0)).tolist() == [1, 1, 2, 2, 0, 0]
    assert per_cache(problem, ((1.0, 2.0),) * 3).tolist() == [1, 2] * 3


@pytest.mark.parametrize("shape", [(2,), (6,), (3, 1), (2, 3), (3, 3)])
def test_importance_of_another_shape_is_refused(problem: Problem, shape: tuple[int, ...]) -> None:
    importance = check_importance(np.ones(shape))
    assert importance is not None
    with pytest.raises(ValueError, match=r"must have the shape \(3,\) or \(3, 2\), but got"):
        per_cache(problem, importance)


def test_without_an_origin_every_unit_is_a_layer() -> None:
    problem = Problem([[1.0, 0.0]] * 2, [[0, 1]] * 2, 1)
    assert per_cache(problem, (3.0, 4.0)).tolist() == [3, 4]
    assert per_cache(problem, ((3.0,), (4.0,))).tolist() == [3, 4]


def test_without_an_origin_a_layer_takes_the_mean_over_its_heads() -> None:
    problem = Problem([[1.0, 0.0]] * 2, [[0, 1]] * 2, 1)
    mean = per_cache(problem, ((3.0, 5.0, 1.0), (0.0, 6.0, 6.0)))
    assert mean == pytest.approx([3.0, 4.0])
    mean = per_cache(problem, ((1e308, 1.5e308),) * 2)
    assert mean == pytest.approx([1.25e308, 1.25e308])


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2), (1, 2)])
def test_without_an_origin_the_number_of_layers_must_be_right(shape: tuple[int, ...]) -> None:
    problem = Problem([[1.0, 0.0]] * 2, [[0, 1]] * 2, 1)
    importance = check_importance(np.ones(shape))
    assert importance is not None
    rule = rf"must have the shape (2,) or (2, kv_heads), but got {shape}."
    with pytest.raises(ValueError, match=re.escape(rule)):
        per_cache(problem, importance)


def test_by_default_it_is_the_loss_that_memory_removes(problem: Problem) -> None:
    removed = problem.loss[:, 0] - problem.loss[:, -1]
    assert (cache_importance(problem, None) == removed).all()
    assert (removable_loss(problem) == cache_importance(problem, None)).all()
    assert layer_importance(problem, None) == pytest.approx(removed.reshape(3, 2).mean(axis=1))


def test_the_mean_over_a_layer_does_not_overflow(problem: Problem) -> None:
    assert np.isfinite(layer_importance(problem, ((1.7e308, 1.7e308),) * 3)).all()


def test_values_of_layers_are_repeated_for_their_caches(problem: Problem) -> None:
    assert of_units(problem, np.array([1.0, 2.0, 3.0])) == [1, 1, 2, 2, 3, 3]
