"""The newest queries of one layer, remembered so that a heuristic can ask what they attend to."""

import torch
from torch import Tensor

QUERIES_REMEMBERED = 32
_FORGOTTEN_AT_ONCE = 8


class RecentQueries:
    """The last queries of a layer, in consecutive columns up to the newest.

    All tokens that were held when a query ran are still held until the next eviction, so what the
    queries attend to can be computed then, for several of them at once. Those of decoded tokens go
    into memory that stays where it is, so that a recorded step of decoding finds it again.

    Attributes:
        unseen: How many of the newest no running heuristic has been shown yet.
    """

    def __init__(self) -> None:
        self._held: Tensor | None = None  # [batch, heads, slots, head_dim]
        self._is_own = False  # whether it may be written
        self._first = self._end = 0  # slots in use
        self.unseen = 0

    @property
    def holds_any(self) -> bool:
        """Whether there is at least one block of queries."""
        return self._held is not None

    @property
    def slots(self) -> Tensor:
        """Memory of the queries, [batch, heads, slots, head_dim]; `reserve` tells whose."""
        assert self._held is not None, "a prompt comes first"
        return self._held

    def append(self, queries: Tensor) -> None:
        """Take note of newer queries, [batch, heads, new, head_dim]; older ones are forgotten.

        What stands before the newest block is enough again if all of that is taken back.
        """
        new = queries.shape[2]
        if self._held is None:
            self._held, self._is_own = queries.detach(), False
            self._first, self._end = 0, new
            self.unseen += new
        else:
            first = self.reserve(new)
            self.slots.narrow(2, first, new).copy_(queries.detach())

    def reserve(self, new: int) -> int:
        """Count `new` queries that are yet to be written, and tell the first of their slots."""
        enough = max(QUERIES_REMEMBERED, self.unseen)
        if self._end - self._first >= enough + _FORGOTTEN_AT_ONCE:
            self._first = self._end - enough
            self._let_go_above(enough)
        if not self._is_own or self._end + new > self.slots.shape[2]:
            self._make_room(new, enough + _FORGOTTEN_AT_ONCE if new == 1 else new)
        first, self._end = self._end, self._end + new
        self.unseen += new
        return first

    def give_back(self) -> None:
        """Forget the newest query, which was never written."""
        self._end -= 1
        self.unseen -= 1

    def all(self) -> Tensor:
        """Every query remembered, oldest first, [batch, heads, queries, head_dim].

        A view, right until the next query comes.
        """
        return self.slots[:, :, self._first : self._end]

    def settle(self, at_least: int = 0) -> None:
        """Count all as shown, and forget all but the last `QUERIES_REMEMBERED`, or more."""
        self.unseen = 0
        if self._held is None:
            return
        enough = max(QUERIES_REMEMBERED, at_least)
        self._first = max(self._first, self._end - enough)
        self._let_go_above(enough)

    def crop(self, removed: int) -> None:
        """Forget the newest ones."""
        self.unseen = max(0, self.unseen - removed)
        self._end = max(self._first, self._end - removed)

    def select_rows(self, rows: Tensor) -> None:
        """Keep these sequences, in this order, repeats allowed."""
        if self._held is not None:
            self._held, self._is_own = self._held[rows.to(self._held.device)], True

    def nbytes(self) -> int:
        """Bytes of the storages."""
        return 0 if self._held is None else self._held.untyped_storage().nbytes()

    def _let_go_above(self, enough: int) -> None:
        """Give back memory of many more queries than are to be remembered."""
        if not self._is_own or self.slots.shape[2] > enough + _FORGOTTEN_AT_ONCE:
            # a slice would keep the whole prompt's queries alive
            self._move(self._end - self._first)

    def _make_room(self, new: int, slots: int) -> None:
        """Have memory for `new` more queries, and for `slots` in all if any has to be taken."""
        used = self.all()
        slots = max(slots, used.shape[2] + new)
        if self._is_own and slots <= self.slots.shape[2]:
            self.slots[:, :, : used.shape[2]] = used.clone()
            self._first, self._end = 0, used.shape[2]
        else:
            self._move(slots)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _move(self, slots: int) -> None:
        """Take memory for so many queries, those remembered the first of them."""
        used = self.all()
        count = used.shape[2]
        memory = used.new_empty(*used.shape[:2], slots, used.shape[3])
        memory[:, :, :count] = used
        self._held, self._is_own = memory, True
        self._first, self._end = 0, count
