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
        watches_attention: Whether ``score`` uses the attention that tokens received from earlier
            queries. The runtime gathers that attention while decoding only if this is True.
        remembers_attention: Whether ``score`` uses the attention of the whole past
            (``LayerView.total_attention``), not only of the newest queries. The runtime then
            keeps the attention of a prompt as well, which costs a pass over all its queries.
        reads_tokens: Whether ``score`` reads keys or values even when the view holds no queries.
            If False, the runtime then passes zeros in their place and saves a copy of the layer.
    """

    __slots__ = ()

    watches_attention: ClassVar[bool] = True
    remembers_attention: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = True

    @abstractmethod
    def score(self, view: LayerView) -> Tensor:
        """Score every held token of one layer; higher means keep.

        Returns:
            Scores, [batch, kv_heads, tokens], float32, finite wherever ``view.valid``. What
            stands at the other places is ignored.
        """


class CacheHeuristic(ABC):
    """Say how much each cache of a layer deserves.

    A subclass is a frozen dataclass that works without arguments and has one method,
    ``importance``.
    """

    __slots__ = ()

    @abstractmethod
    def importance(self, view: CacheView) -> Tensor:
        """Weigh the caches of one layer; higher means it deserves more memory.

        The numbers of all layers are put side by side, so they must be comparable across layers.

        Returns:
            Importance, [kv_heads], float32, finite, never negative.
        """
