import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator.sharing.clusters import cluster


def squares(values: np.ndarray, label: np.ndarray) -> float:
    groups = [values[label == each] for each in np.unique(label)]
    return float(sum(((group - group.mean()) ** 2).sum() for group in groups))


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=8), st.integers(1, 4))
def test_no_other_division_into_ranges_has_smaller_squares(
    numbers: list[int], clusters: int
) -> None:
    values = np.array(numbers, dtype=np.float64)
    label = cluster(values, clusters)
    best = np.inf
    for cuts in itertools.combinations_with_replacement(np.unique(values), clusters - 1):
        best = min(best, squares(values, np.searchsorted(cuts, values, side="right")))
    assert squares(values, label) == pytest.approx(best, abs=1e-9)
    assert sorted(set(label.tolist())) == list(range(min(clusters, len(np.unique(values)))))


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30))
def test_higher_values_are_never_in_lower_clusters(numbers: list[float]) -> None:
    values = np.array(numbers)
    order = np.argsort(values)
    assert (np.diff(cluster(values, 3)[order]) >= 0).all()
    assert (np.diff(cluster(values, 3)[order])[np.diff(values[order]) == 0] == 0).all()


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_three_heaps_are_found_at_any_scale(scale: float) -> None:
    values = np.array([5.0, 1.0, 9.1, 1.1, 9.0, 5.2, 0.9]) * scale
    assert cluster(values, 3).tolist() == [1, 0, 2, 0, 2, 1, 0]
