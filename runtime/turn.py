"""Whose turn it is to read into a cache: one model, one thread, one forward at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from torch import nn

from kvbudget.allocator import KVBudgetError, WrongModel


class Context:
    """One `with budgeted(...)`; all caches that belong to it, and copies of them, share it.

    Args:
        model: The model it serves.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._name = ref(model), type(model).__name__
        self.is_open = True

    def __deepcopy__(self, memo: dict[int, object]) -> "Context":
        """A copied cache stays in the context of the first."""
        return self

    def close(self) -> None:
        """From now on its caches are refused."""
        self.is_open = False

    def check(self, model: nn.Module) -> None:
        """Refuse a cache of this context that is given to a model.

        Raises:
            KVBudgetError: The context is over.
            WrongModel: It is another model.
        """
        if not self.is_open:
            raise KVBudgetError(
                "The cache is used after the end of its `with budgeted(...)`, where its model no "
                "longer attends through kvbudget: move the call into the context."
            )
        if self._model() is not model:
            raise WrongModel(
                f"The cache belongs to another {self._name} than the {type(model).__name__} that "
                f"it was given to: open `with budgeted(...)` on that model for a cache of its own."
            )


class Turn:
    """Who reads into one cache just now.

    Attributes:
        context: What the cache belongs to.
        borrowers: Caches that its layers are lent to.
    """

    def __init__(self, context: Context | None = None) -> None:
        self.context = context
        self.borrowers: WeakSet[Any] = WeakSet()
        self._thread: int | None = None
        self._began_empty = False

    def __deepcopy__(self, memo: dict[int, object]) -> "Turn":
        """Nobody reads into a copy yet, and it has lent nothing."""
        return Turn(self.context)

    def is_in_context(self) -> bool:
        """Whether the context has begun and is not over."""
        return self.context is not None and self.context.is_open

    def call_in(self) -> None:
        """Take the layers back from all borrowers; nothing is left of the last forward."""
        for borrower in self.borrowers:
            borrower.layers = []
        self.borrowers.clear()
        self._began_empty = False

    def check_free(self) -> None:
        """Refuse a second thread.

        Raises:
            KVBudgetError: Another thread is in the middle of a forward.
        """
        readers = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        if self._thread in readers:
            raise KVBudgetError(
                "Another thread is reading into the cache just now, and two at a time would mix "
                "their tokens: let one wait for the other, or give each a copy.deepcopy(cache)."
            )

    def begin(self, is_empty: bool) -> bool:
        """Start a forward in this thread.

        Args:
            is_empty: Whether nothing has been read into the cache before.

        Returns:
            Whether the last forward broke off on an empty cache: a reset then loses nothing.

        Raises:
            KVBudgetError: Another thread is in the middle of a forward.
        """
        self.check_free()
        to_reset, self._began_empty = self._began_empty, is_empty or self._began_empty
        self._thread = threading.get_ident()
        return to_reset

    def end(self, is_whole: bool) -> None:
        """Finish a forward of this thread; others leave it alone.

        Args:
            is_whole: Whether it got to its end.
        """
        if self._thread == threading.get_ident():
            self._thread = None
            self._began_empty = self._began_empty and not is_whole

    def is_mine(self) -> bool:
        """Whether this thread is in the middle of a forward."""
        return self._thread == threading.get_ident()

    def check_begun(self) -> None:
        """Refuse tokens that come in outside a forward.

        Raises:
            KVBudgetError: No forward of the cache's own model is under way in this thread.
        """
        if not self.is_mine():
            raise KVBudgetError(
                "The cache got tokens from elsewhere than a call of its own model inside its "
                "`with budgeted(...)`: call the model that was given to budgeted(), in the context."
            )


_OPEN: WeakKeyDictionary[nn.Module, Context] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def only_context(model: nn.Module) -> Iterator[Context]:
    """Open the one context that a model may have at a time.

    Raises:
        KVBudgetError: It has one already.
    """
    with _LOCK:
        if model in _OPEN:
            raise KVBudgetError(
                f"This {type(model).__name__} is inside a `with budgeted(...)` already, and a "
                f"plain generate could not tell whose cache to use: leave that context first."
            )
        context = _OPEN[model] = Context(model)
    try:
        yield context
    finally:
        context.close()
        with _LOCK:
            _OPEN.pop(model, None)  # a context that was never left goes with its model
