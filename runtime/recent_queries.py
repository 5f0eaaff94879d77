"""The newest queries of one layer, remembered so that a heuristic can ask what they attend to."""

import torch
from torch import Tensor

QUERIES_REMEMBERED = 32
_FORGOTTEN_AT_ONCE = 8


class RecentQueries:
    """The last queries of a layer, in consecutive columns up to the newest.

    All tokens that were held when a query ran are still held until the next eviction, so what the
    queries attend to can be computed then, for several of them at once.

    Attributes:
        unseen: How many of the newest no running heuristic has been shown yet.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self.unseen = 0

    @property
    def holds_any(self) -> bool:
        """Whether there is at least one block of queries."""
        return bool(self._parts)

    def append(self, queries: Tensor) -> None:
        """Take note of newer queries, [batch, heads, new, head_dim]; older ones are forgotten.

        What stands before the newest block is enough again if all of that is taken back.
        """
        enough = max(QUERIES_REMEMBERED, self.unseen)
        if sum(part.shape[2] for part in self._parts) >= enough + _FORGOTTEN_AT_ONCE:
            self._keep_last(enough)
        self._parts.append(queries.detach())
        self.unseen += queries.shape[2]

    def all(self) -> Tensor:
        """Every query remembered, oldest first, [batch, heads, queries, head_dim]."""
        self._parts = [torch.cat(self._parts, 2)]
        return self._parts[0]

    def settle(self, at_least: int = 0) -> None:
        """Count all as shown, and forget all but the last `QUERIES_REMEMBERED`, or more."""
        self.unseen = 0
        if self._parts:
            self._keep_last(max(QUERIES_REMEMBERED, at_least))

    def crop(self, removed: int) -> None:
        """Forget the newest ones."""
        self.unseen = max(0, self.unseen - removed)
        if self._parts:
            queries = self.all()
            self._parts = [queries[:, :, : max(0, queries.shape[2] - removed)]]

    def select_rows(self, rows: Tensor) -> None:
        """Keep these sequences, in this order, repeats allowed."""
        self._parts = [part[rows.to(part.device)] for part in self._parts]

    def _keep_last(self, count: int) -> None:
        # a slice would keep the whole prompt's queries alive
        self._parts = [self.all()[:, :, -count:].clone()]

    def nbytes(self) -> int:
        """Bytes of the storages."""
        return sum(part.untyped_storage().nbytes() for part in self._parts)
