"""The two kinds of heuristic: one scores tokens, the other scores whole caches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from .cache_view import CacheView
    from .layer_view import LayerView


class TokenHeuristic(ABC):
    """Say which tokens of a cache to keep.

    A subclass is a frozen dataclass that works without arguments and has one method, ``score``.
    It need not keep sinks or recent tokens, sort, or cut: the runtime does that for all.

    Attributes:
        reads_queries: Whether ``score`` asks for attention or queries. The runtime remembers the
            newest queries while decoding only if this is True.
        reads_tokens: Whether ``score`` reads keys, values or attention. If False, the runtime
            passes zeros in their place while decoding and saves a copy of the layer.
        reads_output_weight: Whether ``score`` reads ``view.output_weight``; only then is it there
            while decoding.
        draws: Whether ``score`` draws random numbers, the same at every call for the same seed,
            but not the same for two heads that hold the same.
    """

    __slots__ = ()

    reads_queries: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    reads_output_weight: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    @abstractmethod
    def score(self, view: LayerView) -> Tensor:
        """Score every held token of one layer; higher means keep.

        Returns:
            Scores, [batch, kv_heads, tokens], float32, finite wherever ``view.valid``. What
            stands at the other places is ignored.
        """


class RunningHeuristic(TokenHeuristic):
    """A token heuristic with a memory: numbers per held token that every query updates.

    The runtime shows every query to ``observe`` exactly once, in order and in blocks of any
    length, before the next call of ``score``. It carries the state through evictions, beam
    search and batching. Queries that are taken back before they were shown never count.

    Attributes:
        channels: Numbers per token.
        looks_ahead: Whether a query may count for tokens behind it, as far as its block reaches.
            Only then may the state depend on how queries are cut into blocks.
    """

    __slots__ = ()

    channels: ClassVar[int] = 1
    looks_ahead: ClassVar[bool] = False

    @abstractmethod
    def observe(self, view: LayerView) -> Tensor:
        """Update the state by the queries of ``view``, none of which it has met.

        Args:
            view: Its ``state`` is what the last call returned; 0 for new tokens.

        Returns:
            The new state, [batch, kv_heads, tokens, channels], float32, finite wherever
            ``view.valid``.
        """

    @abstractmethod
    def score(self, view: LayerView) -> Tensor:
        """Score every held token of one layer from ``view.state``; higher means keep.

        Args:
            view: All of its queries have been counted in its ``state``.

        Returns:
            Scores, [batch, kv_heads, tokens], float32, finite wherever ``view.valid``.
        """


class CacheHeuristic(ABC):
    """Say how much each cache of a layer deserves.

    A subclass is a frozen dataclass that works without arguments and has one method,
    ``importance``.

    Attributes:
        needs_gradient: Whether ``importance`` reads ``view.gradient``; costs a backward pass for
            each label sample.
    """

    __slots__ = ()

    needs_gradient: ClassVar[bool] = False

    @abstractmethod
    def importance(self, view: CacheView) -> Tensor:
        """Weigh the caches of one layer; higher means it deserves more memory.

        The numbers of all layers are put side by side, so they must be comparable across layers.

        Returns:
            Importance, [kv_heads], float32, finite, never negative.
        """
