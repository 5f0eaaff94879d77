"""The memory of a cache: an arena on every device that holds layers."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from kvbudget.allocator import KVBudgetError, WrongModel
from kvbudget.allocator.geometry import DTYPE_BYTES

from .arena import Arena, Movable, Region
from .room import Room


class Arenas:
    """All arenas of a cache. Each comes into being with the first tokens of one of its layers.

    Args:
        room: Says what each device may hold.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self._arenas: dict[int, Arena] = {}
        self._rows: tuple[int, ...] = ()
        self._tenants: set[int] = set()

    def region(self, layer: int, keys: Tensor, values: Tensor) -> Region:
        """Where a layer may put its keys and values.

        Args:
            layer: Layer number.
            keys: Its first tokens, which tell type and device.
            values: The same.

        Raises:
            WrongModel: The tokens take more bytes than the plan reckons with.
            KVBudgetError: They lie on another device than those of the layers they should be with.
        """
        self._tenants.add(layer)
        place = next(at for at, share in enumerate(self.room.shares) if layer in share.layers)
        if place not in self._arenas:
            self._check_type(layer, keys, values)
            shapes = self.room.plan.geometry.shapes
            share = self.room.shares[place]
            self._arenas[place] = Arena(share, shapes, keys, values, self._rows)
        arena = self._arenas[place]
        if (arena.keys.device, arena.keys.dtype) != (keys.device, keys.dtype):
            raise KVBudgetError(
                f"Layer {layer} brings {keys.dtype} keys on {keys.device}, but the cache holds "
                f"{arena.keys.dtype} on {arena.keys.device} for it. Say where the layers are when "
                f"the cache is made, or call cache.reset() if the model was moved."
            )
        return arena.region(layer)

    def release(self, layer: int) -> None:
        """A layer holds nothing any more; when none does, the memory is given back."""
        self._tenants.discard(layer)
        if not self._tenants:
            self._arenas = {}

    def arrange(self, rows: Sequence[int], tenants: Mapping[int, Movable]) -> None:
        """Give the layers regions of so many rows, [layers], and move what they hold."""
        self._rows = tuple(rows)
        for arena in self._arenas.values():
            arena.arrange(self._rows, tenants)

    def resize(self, room: Room, rows: Sequence[int], tenants: Mapping[int, Movable]) -> None:
        """The same for another budget, with memory of its size."""
        self.room, self._rows = room, tuple(rows)
        for place, arena in self._arenas.items():
            arena.resize(room.shares[place], self._rows, tenants)

    def blocks(self) -> list[Tensor]:
        """Every block of memory."""
        return [block for arena in self._arenas.values() for block in (arena.keys, arena.values)]

    def _check_type(self, layer: int, keys: Tensor, values: Tensor) -> None:
        dtype = self.room.plan.geometry.dtype
        if max(keys.element_size(), values.element_size()) > DTYPE_BYTES[dtype]:
            raise WrongModel(
                f"Layer {layer} brings {keys.dtype} keys and {values.dtype} values, but the plan "
                f"reckons with {dtype}. Make a plan for the type that the model computes in."
            )
