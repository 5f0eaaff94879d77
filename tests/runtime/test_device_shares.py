"""The budget divided over devices: every capacity finds room, and no byte is given out twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import CacheShape, Certificate, Geometry, Plan
from kvbudget.runtime.device_shares import divide
from kvbudget.runtime.room import Room

SHAPES = [CacheShape(1, 8, 2), CacheShape(2, 4, 4), CacheShape(3, 6, 4), CacheShape(2, 4, 4)]


@st.composite
def plans(draw: st.DrawFn, shapes=None) -> Plan:
    """Plans of four layers, of unequal or equal shape, with bytes to spare."""
    shapes = shapes or draw(st.sampled_from([SHAPES, SHAPES[1:2] * 4]))
    geometry = Geometry.of_layers("Some", shapes, "bfloat16", (None,) * 4)
    numbers = st.lists(st.integers(1, 50), min_size=geometry.caches, max_size=geometry.caches)
    capacity, rows = geometry.on_grid(np.array(draw(numbers))), draw(st.integers(1, 3))
    used = int((capacity * geometry.token_bytes).sum()) * rows
    return Plan(
        capacity_tokens=capacity,
        context_tokens=50,
        batch_size=rows,
        budget_bytes=used + draw(st.integers(0, 3000)),
        certificate=Certificate("by hand", "FEASIBLE", 1.0, 0.0, 1.0),
        geometry=geometry,
        model="tiny",
        heuristic="",
        heuristic_settings=(),
        measure="",
    )


places = st.lists(st.sampled_from("abc"), min_size=4, max_size=4)


@settings(deadline=None)
@given(plans(), places)
def test_every_device_holds_its_capacities_and_all_hold_the_budget_at_most(plan, devices):
    shares = divide(plan, devices)
    assert sorted(layer for share in shares for layer in share.layers) == [0, 1, 2, 3]
    assert 2 * sum(s.key_elements + s.value_elements for s in shares) <= plan.budget_bytes
    for share in shares:
        assert len({devices[layer] for layer in share.layers}) == 1
        rows = [int(plan.capacity_tokens[at].sum()) * plan.batch_size for at in share.layers]
        shapes = [plan.geometry.shape_of(layer) for layer in share.layers]
        pairs = list(zip(rows, shapes, strict=True))
        assert share.key_elements >= sum(count * shape.head_dim for count, shape in pairs)
        assert share.value_elements >= sum(count * shape.value_dim for count, shape in pairs)


@settings(deadline=None)
@given(plans(), places, st.integers(1, 4))
def test_even_shares_fit_every_device_and_one_token_more_fits_one_of_them_not(plan, devices, rows):
    room, shapes = Room(plan, devices), plan.geometry.shapes
    shared, tight = room.even_share_tokens(rows), []
    for share in room.shares:
        held = [(shapes[layer], shapes[layer].kv_heads * rows) for layer in share.layers]
        for elements, name in (
            (share.key_elements, "head_dim"),
            (share.value_elements, "value_dim"),
        ):
            token = sum(caches * getattr(shape, name) for shape, caches in held)
            assert shared * token <= elements
            tight.append((shared + 1) * token > elements)
    assert any(tight)
    assert room.everything_fits(rows, shared)
    assert not room.everything_fits(rows, shared + 1)


@settings(deadline=None)
@given(plans(SHAPES[1:2] * 4), st.integers(1, 4))
def test_layers_of_one_shape_on_one_device_share_every_byte(plan, rows):
    token = int(plan.geometry.token_bytes.sum()) * rows
    assert Room(plan).even_share_tokens(rows) == plan.budget_bytes // token
    assert Room(plan, ["cpu"] * 4).shares == Room(plan).shares


@settings(deadline=None)
@given(plans())
def test_capacities_are_those_of_the_heads_that_a_layer_has(plan):
    room = Room(plan)
    shared = room.even_share_tokens(1)
    for layer, shape in enumerate(plan.geometry.shapes):
        assert room.capacities(layer, 1, shared).tolist() == [[shared] * shape.kv_heads]
        planned = plan.capacity_tokens[layer, : shape.kv_heads].tolist()
        assert room.capacities(layer, 1, shared + 1).tolist() == [planned]


@settings(deadline=None)
@given(plans())
def test_a_device_is_needed_for_every_layer(plan):
    with pytest.raises(ValueError, match="one device for each of 4 layers, but got 3"):
        divide(plan, ["a"] * 3)
