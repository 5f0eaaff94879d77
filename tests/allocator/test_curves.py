from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from kvbudget.allocator import lower_hull, running_minimum
from kvbudget.allocator.curves import build_chains

Array = np.ndarray[Any, Any]


@st.composite
def curves(draw: st.DrawFn) -> tuple[Array, Array]:
    """Cost [units, levels] never falling, loss never rising; small whole numbers, so exact."""
    units, levels = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    row = st.lists(st.integers(0, 5), min_size=levels, max_size=levels)
    rows = st.lists(row, min_size=units, max_size=units)
    cost = np.cumsum(np.array(draw(rows)), axis=1)
    loss = 100.0 - np.cumsum(np.array(draw(rows)), axis=1)
    return cost, loss


def slow_hull(cost: Array, loss: Array) -> list[int]:
    """Corners of one curve by definition: no chord between two other points is at or below."""
    best = int((loss == loss[cost == cost[0]].min()).argmax())
    chain = [best]
    while True:
        here = chain[-1]
        ahead = [k for k in range(len(cost)) if cost[k] > cost[here] and loss[k] < loss[here]]
        if not ahead:
            return chain
        slope = {k: (loss[here] - loss[k]) / (cost[k] - cost[here]) for k in ahead}
        steepest = max(slope.values())
        # of points on one line the farthest, and of equal points the first
        far = [k for k in ahead if slope[k] == steepest]
        chain.append(min(far, key=lambda k: (loss[k], k)))


@settings(max_examples=300)
@given(curves())
def test_the_hull_is_the_one_of_the_definition(curve: tuple[Array, Array]) -> None:
    cost, loss = curve
    mask = lower_hull(cost, loss)
    assert mask.shape == loss.shape
    for unit in range(len(cost)):
        assert np.flatnonzero(mask[unit]).tolist() == slow_hull(cost[unit], loss[unit])


def test_the_hull_of_many_random_curves_is_that_of_qhull() -> None:
    rng = np.random.default_rng(3)
    cost = np.cumsum(rng.integers(1, 50, (40, 30)), axis=1)
    loss = 1000 - np.cumsum(rng.exponential(size=(40, 30)), axis=1)
    mask = lower_hull(cost, loss)
    for unit in range(40):
        points = np.stack((cost[unit], loss[unit]), axis=1)
        corner = np.array([[cost[unit, -1] + 1e6, 1e6]])
        hull = set(ConvexHull(np.concatenate((points, corner))).vertices.tolist()) - {30}
        # the far corner hides nothing below the curve, but shows its two ends
        assert set(np.flatnonzero(mask[unit]).tolist()) == hull


@given(curves())
def test_along_the_hull_each_byte_removes_less(curve: tuple[Array, Array]) -> None:
    cost, loss = curve
    mask = lower_hull(cost, loss)
    for unit in range(len(cost)):
        x, y = cost[unit, mask[unit]], loss[unit, mask[unit]]
        slopes = np.diff(y) / np.diff(x)
        assert (np.diff(x) > 0).all()
        assert (slopes < 0).all()
        assert (np.diff(slopes) > 0).all()


def test_a_straight_line_has_only_its_ends_as_corners() -> None:
    mask = lower_hull(np.array([[1, 2, 3, 4]]), np.array([[9.0, 6.0, 3.0, 0.0]]))
    assert mask.tolist() == [[True, False, False, True]]


def test_flat_ends_and_free_upgrades_are_cut_off() -> None:
    cost = np.array([[1, 1, 2, 3, 4], [5, 5, 5, 5, 5]])
    loss = np.array([[9.0, 7.0, 3.0, 3.0, 3.0], [4.0, 4.0, 4.0, 4.0, 4.0]])
    mask = lower_hull(cost, loss)
    assert np.flatnonzero(mask[0]).tolist() == [1, 2]
    assert np.flatnonzero(mask[1]).tolist() == [0]


def test_a_late_drop_takes_every_corner_before_it_away() -> None:
    cost = np.arange(1, 101)[None]
    loss = 1 / cost
    loss[0, -1] = -1e6
    assert np.flatnonzero(lower_hull(cost, loss)[0]).tolist() == [0, 99]


def test_the_running_minimum_never_rises_and_never_adds() -> None:
    loss = np.array([[3.0, 4.0, 1.0, 2.0], [0.0, 0.0, 5.0, 0.0]])
    assert running_minimum(loss).tolist() == [[3, 3, 1, 1], [0, 0, 0, 0]]
    assert loss[0, 1] == 4.0


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(2, 60))
def test_bends_of_every_kind_leave_only_corners(seed: int, levels: int) -> None:
    # bumps of all widths, some of which no look at direct neighbours shows
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 4, (3, levels)), axis=1)
    drops = rng.integers(0, 3, (3, levels)) * rng.integers(0, 2, (3, 1)) + rng.integers(0, 9)
    drops[:, rng.integers(0, levels)] += rng.integers(0, 200)
    loss = 1e6 - np.cumsum(drops, axis=1)
    mask = lower_hull(cost, loss)
    for unit in range(3):
        assert np.flatnonzero(mask[unit]).tolist() == slow_hull(cost[unit], loss[unit])


def test_bytes_that_are_equal_as_floats_are_told_apart() -> None:
    huge = 2**61
    cost = huge + np.arange(4)[None]
    assert float(huge) == float(huge + 3)
    assert lower_hull(cost, np.array([[9.0, 5.0, 4.0, 3.5]])).all()
    bent = lower_hull(cost, np.array([[9.0, 8.0, 4.0, 3.5]]))
    assert np.flatnonzero(bent[0]).tolist() == [0, 2, 3]


def test_no_hull_of_no_curves_at_all() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert build_chains(none, none.astype(float), none).tolist() == []
