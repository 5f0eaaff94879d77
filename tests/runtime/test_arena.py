"""Regions are cut, moved and resized without a row lost, and nothing lies outside the arena."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import CacheShape
from kvbudget.runtime.arena import Arena, Region
from kvbudget.runtime.device_shares import DeviceShare

SHAPES = (CacheShape(1, 3, 2), CacheShape(2, 2, 2), CacheShape(2, 5, 1), CacheShape(1, 2, 4))
LAYERS = (0, 1, 3)  # layer 2 lies elsewhere
ROWS = st.lists(st.integers(0, 9), min_size=4, max_size=4)


@dataclass
class Tenant:
    """Some rows at the start of a region, and what they should be."""

    region: Region
    keys: torch.Tensor
    values: torch.Tensor

    @property
    def held_rows(self) -> int:
        return len(self.keys)

    def move(self, region: Region) -> None:
        for ours, other in ((self.region.keys, region.keys), (self.region.values, region.values)):
            other[: self.held_rows] = ours[: self.held_rows].clone()
        self.rebind(region)

    def rebind(self, region: Region) -> None:
        self.region = region

    @property
    def is_whole(self) -> bool:
        """Whether it still finds its rows, at the start of its region."""
        held = self.held_rows
        keys, values = self.region.keys[:held], self.region.values[:held]
        return torch.equal(keys, self.keys) and torch.equal(values, self.values)


def share_of(rows: list[int], spare: int = 0) -> DeviceShare:
    """A share that holds regions of these sizes."""
    keys = sum(rows[layer] * SHAPES[layer].head_dim for layer in LAYERS) + spare
    values = sum(rows[layer] * SHAPES[layer].value_dim for layer in LAYERS) + spare
    return DeviceShare(LAYERS, keys, values, 9, 10)


def filled(rows: list[int], held: list[int], spare: int = 0) -> tuple[Arena, dict[int, Tenant]]:
    """An arena with so many rows in its regions; layers without any have no tenant."""
    arena = Arena(share_of(rows, spare), SHAPES, torch.zeros(1), torch.zeros(1).half(), rows)
    tenants = {}
    for layer in LAYERS:
        count = min(held[layer], rows[layer])
        if count:
            region, shape = arena.region(layer), SHAPES[layer]
            keys, values = torch.randn(count, shape.head_dim), torch.randn(count, shape.value_dim)
            region.keys[:count], region.values[:count] = keys, values.half()
            tenants[layer] = Tenant(region, keys, values.half())
    return arena, tenants


def check_places(arena: Arena, rows: list[int], tenants: dict[int, Tenant]) -> None:
    """Every region has its size, none overlaps another, and all rows are where they belong."""
    taken = 0
    for layer in LAYERS:
        region = arena.region(layer)
        assert region.keys.shape == (rows[layer], SHAPES[layer].head_dim)
        assert region.values.shape == (rows[layer], SHAPES[layer].value_dim)
        assert region.keys.is_contiguous()
        assert region.keys.untyped_storage().data_ptr() == arena.keys.untyped_storage().data_ptr()
        assert region.keys.numel() == 0 or region.keys.storage_offset() >= taken
        taken = max(taken, region.keys.storage_offset() + region.keys.numel())
        if layer in tenants:
            assert tenants[layer].is_whole
            assert tenants[layer].region.keys.data_ptr() == region.keys.data_ptr()
            assert tenants[layer].region.values.data_ptr() == region.values.data_ptr()


@settings(deadline=None)
@given(ROWS, ROWS, ROWS)
def test_regions_of_other_sizes_hold_what_the_old_ones_held(old, new, held):
    new = [max(size, min(h, o)) for size, h, o in zip(new, held, old, strict=True)]
    spare = 9 * sum(new)
    arena, tenants = filled(old, held, spare)
    block = arena.keys.data_ptr()
    check_places(arena, old, tenants)
    arena.arrange(new, tenants)
    check_places(arena, new, tenants)
    assert arena.keys.data_ptr() == block
    arena.arrange(old, tenants)
    check_places(arena, old, tenants)


@settings(deadline=None)
@given(ROWS, ROWS, ROWS, st.integers(0, 20))
def test_a_block_of_another_size_takes_over_what_is_held(old, new, held, spare):
    new = [max(size, min(h, o)) for size, h, o in zip(new, held, old, strict=True)]
    arena, tenants = filled(old, held)
    share = share_of(new, spare)
    arena.resize(share, new, tenants)
    check_places(arena, new, tenants)
    assert arena.keys.untyped_storage().nbytes() == share.key_elements * 4
    assert arena.values.untyped_storage().nbytes() == share.value_elements * 2


def test_an_arena_is_as_large_as_its_share():
    arena, _ = filled([1, 2, 3, 4], [0] * 4, spare=5)
    assert arena.keys.numel() == 1 * 3 + 2 * 2 + 4 * 2 + 5
    assert arena.values.numel() == 1 * 2 + 2 * 2 + 4 * 4 + 5
    assert (arena.keys.dtype, arena.values.dtype) == (torch.float32, torch.float16)


def test_regions_larger_than_the_arena_are_an_error():
    arena, tenants = filled([1, 2, 3, 4], [1] * 4)
    with pytest.raises(RuntimeError):
        arena.arrange([9, 9, 9, 9], tenants)
