"""All layers of one budgeted cache: what has to be settled between them."""

from collections.abc import Sequence

from torch import Tensor

from kvbudget.allocator import KVBudgetError, Plan
from kvbudget.heuristics import Rotation, TokenHeuristic

from .budgeted_layer import BudgetedLayer
from .ragged import RaggedStore
from .room import Room


class LayerStack:
    """The layers of a cache, which share one budget and advance together.

    Args:
        plan: Capacities per layer and KV head.
        heuristic: Scores the tokens whenever some have to go.
        rotations: How each layer rotates queries and keys; nothing known by default.

    Attributes:
        layers: One for each layer of the model.
        was_used: Whether tokens ever came in.
    """

    def __init__(
        self,
        plan: Plan,
        heuristic: TokenHeuristic,
        rotations: Sequence[Rotation | None] | None = None,
    ) -> None:
        self._room = Room(plan)
        self.was_used = False
        windows = plan.geometry.windows
        self.layers = [
            BudgetedLayer(index, self._room, heuristic, window, rotation)
            for index, (window, rotation) in enumerate(
                zip(windows, rotations or [None] * len(windows), strict=True)
            )
        ]

    @property
    def rows(self) -> int:
        """Sequences held, 0 before the first prompt."""
        store = self.layers[0].store
        return 0 if store is None else store.batch

    def foretell(self, states: Sequence[Tensor]) -> None:
        """Hand each layer what a second reading told of the prompt that comes next.

        Args:
            states: One for each layer, [batch, kv_heads, columns, channels].
        """
        for layer, state in zip(self.layers, states, strict=True):
            layer.foretold = state

    def expect(self, batch: int, new: int) -> None:
        """Get ready for `new` tokens in every layer.

        Raises:
            KVBudgetError: The last forward broke off half-way.
        """
        self.was_used = True
        self._check_whole()
        self.shrink_to(batch, self.layers[0].seen_tokens + new)

    def shrink_to(self, batch: int, seen_tokens: int) -> None:
        """Cut every layer to what it may hold, before one of them grows at another's expense.

        Nothing is cut while the capacities stay what they were.
        """
        rows, room = self.rows, self._room
        fitted = rows == 0 or room.everything_fits(rows, self.layers[0].seen_tokens)
        if batch > rows or (fitted and not room.everything_fits(batch, seen_tokens)):
            for layer in self.layers:
                layer.shrink_to(batch, seen_tokens)

    def nbytes(self, overhead: bool) -> int:
        """Bytes of the live storages, with or without all that is kept beside K and V."""
        extra = sum(layer.overhead_nbytes() for layer in self.layers) if overhead else 0
        return sum(store.nbytes() for store in self._stores()) + extra

    def kept_positions(self, layer: int) -> list[list[Tensor]]:
        """Columns that one layer holds, per sequence and KV head."""
        store = self.layers[layer].store
        return [] if store is None else store.kept_positions()

    def _stores(self) -> list[RaggedStore]:
        stores = [layer.store for layer in self.layers]
        return [store for store in stores if store is not None]

    def _check_whole(self) -> None:
        first = self.layers[0]
        for layer in self.layers:
            if layer.is_pending or layer.seen_tokens != first.seen_tokens:
                raise KVBudgetError(
                    f"The last forward broke off in layer {layer.index}, so the layers of the "
                    f"cache no longer agree. Call cache.reset() and read the prompt again."
                )
