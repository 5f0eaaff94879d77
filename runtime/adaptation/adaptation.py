"""What an adaptation is: scores of a prompt in, capacities for that prompt out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..eviction import RECENT_TOKENS, SINK_TOKENS
from .expected import Expected


@dataclass(frozen=True, slots=True, eq=False)
class LayerScores:
    """What one layer knows of a prompt when its capacities are divided anew.

    Args:
        scores: Score of each token, [batch, kv_heads, tokens], float32, higher means keep.
        reach: Tokens that exist and may still be seen, same shape, bool.
        capacity_tokens: The plan's capacities, [1 or batch, kv_heads], int64, at least 0.
        token_bytes: Bytes of the key and the value of one token in one of these caches.
        expected: What the plan's profile expects each further token to save; None if the plan does
            not know.
        sinks: First tokens that are kept before all others.
        recent: Last tokens that are kept next.
    """

    scores: Tensor
    reach: Tensor
    capacity_tokens: Tensor
    token_bytes: int = 1
    expected: Expected | None = None
    sinks: int = SINK_TOKENS
    recent: int = RECENT_TOKENS


class Adaptation(ABC):
    """A way to divide the plan's memory anew for a prompt that has been read.

    Every sequence of a batch is divided by itself: it has the bytes that the plan gives one
    sequence, whatever the others hold. Every adaptation works with default arguments.

    Attributes:
        sees_all_layers: Whether memory may move between layers, so that all of them have to be
            read before one is cut; if not, each layer is divided as soon as it has been read.
    """

    __slots__ = ()

    sees_all_layers: ClassVar[bool]

    @abstractmethod
    def divide(self, layers: Sequence[LayerScores]) -> list[Tensor]:
        """Divide the capacities of these layers anew.

        Args:
            layers: One or more layers; all of those that share memory if `sees_all_layers`.
                They hold the same sequences and lie on one device.

        Returns:
            Capacities of each layer, [batch, kv_heads], int64, on the CPU. They need no more
            bytes than the plan's.
        """


def check_share(name: str, share: float) -> None:
    """Refuse a share that is none.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not between 0 and 1.
    """
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise TypeError(f"`{name}` must be a number from 0 to 1, but got {share!r:.60}.")
    if not 0 <= share <= 1:
        raise ValueError(f"`{name}` must be from 0 to 1, but got {share}.")
