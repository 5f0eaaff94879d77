"""Memory for the keys and values of all layers on one device, allocated once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kvbudget.allocator import CacheShape

from .device_shares import DeviceShare


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Where one layer's keys and values lie: views of an arena.

    Args:
        keys: [rows, head_dim].
        values: [rows, value_dim].
    """

    keys: Tensor
    values: Tensor


class Movable(Protocol):
    """What lies at the start of a region and can be moved."""

    @property
    def held_rows(self) -> int:
        """Rows that hold a token."""

    def move(self, region: Region) -> None:
        """Copy those rows to the start of another region, which may overlap, and stay there."""

    def rebind(self, region: Region) -> None:
        """Stay in a region to whose start somebody else copied those rows."""


class Arena:
    """One block of keys and one of values, cut into a region for each layer, in their order.

    The blocks stay where they are as long as the budget stays what it is; what is moved between
    regions of other sizes is moved inside, one layer's rows at a time.

    Args:
        share: Layers, and the sizes of the blocks.
        shapes: Shape of every layer's caches, those of other devices too.
        keys: Any keys of these layers; tells type and device.
        values: Any values of these layers.
        rows: Size of every layer's region, [layers].
    """

    def __init__(
        self,
        share: DeviceShare,
        shapes: Sequence[CacheShape],
        keys: Tensor,
        values: Tensor,
        rows: Sequence[int],
    ) -> None:
        self.share, self._shapes, self._rows = share, shapes, tuple(rows)
        self.keys = _block(keys, share.key_elements)
        self.values = _block(values, share.value_elements)

    def region(self, layer: int) -> Region:
        """Where a layer may put its keys and values."""
        return self._regions(dict(zip(self.share.layers, self._own_rows(), strict=True)))[layer]

    def arrange(self, rows: Sequence[int], tenants: Mapping[int, Movable]) -> None:
        """Cut regions of other sizes, and move what lies in them.

        Args:
            rows: Size of every layer's region, [layers].
            tenants: What lies in the regions of layers that hold anything; it fits the new ones.
        """
        self._pack(tenants)
        self._rows = tuple(rows)
        self._spread(tenants)

    def resize(
        self, share: DeviceShare, rows: Sequence[int], tenants: Mapping[int, Movable]
    ) -> None:
        """Go on with blocks of other sizes; the old ones are given back."""
        packed = self._pack(tenants)
        self.share, self._rows = share, tuple(rows)
        self.keys = _copied(self.keys, share.key_elements)
        self.values = _copied(self.values, share.value_elements)
        for layer, region in self._regions(packed).items():
            tenants[layer].rebind(region)
        self._spread(tenants)

    def _pack(self, tenants: Mapping[int, Movable]) -> dict[int, int]:
        """Move everything to the left without gaps; returns the rows of each layer."""
        # what lies further left was moved before, so nothing is overwritten that still has to move
        packed = {at: tenants[at].held_rows for at in self.share.layers if at in tenants}
        for layer, region in self._regions(packed).items():
            tenants[layer].move(region)
        return packed

    def _spread(self, tenants: Mapping[int, Movable]) -> None:
        """Move packed layers to the right, into their regions."""
        regions = self._regions(dict(zip(self.share.layers, self._own_rows(), strict=True)))
        for layer in reversed(self.share.layers):
            if layer in tenants:
                tenants[layer].move(regions[layer])

    def _own_rows(self) -> list[int]:
        return [self._rows[layer] for layer in self.share.layers]

    def _regions(self, rows: Mapping[int, int]) -> dict[int, Region]:
        """Regions of so many rows, one behind the other."""
        regions, key, value = {}, 0, 0
        for layer, count in rows.items():
            shape = self._shapes[layer]
            key_end, value_end = key + count * shape.head_dim, value + count * shape.value_dim
            regions[layer] = Region(
                self.keys[key:key_end].view(count, shape.head_dim),
                self.values[value:value_end].view(count, shape.value_dim),
            )
            key, value = key_end, value_end
        return regions


def _block(like: Tensor, elements: int) -> Tensor:
    # new_empty would make an inference tensor of one, which cannot be written to elsewhere
    return torch.empty(elements, dtype=like.dtype, device=like.device)


def _copied(block: Tensor, elements: int) -> Tensor:
    """A block of another size that begins with the same elements."""
    copied = _block(block, elements)
    common = min(elements, len(block))
    copied[:common] = block[:common]
    return copied
