"""The caches that are compared: the model's own, and those of plans."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvbudget.allocator import Plan
from kvbudget.runtime import Adaptation, budgeted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvbudget.heuristics import TokenHeuristic

Fresh = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class CacheKind(ABC):
    """Where a model keeps what it has read."""

    @abstractmethod
    def opened(self, model: "PreTrainedModel") -> AbstractContextManager[Fresh]:
        """A context in which the model runs with such caches; yields what gives an empty one."""

    @abstractmethod
    def held_bytes(self, cache: Any) -> int:
        """Bytes of the keys and values that live in a cache of this kind."""


@dataclass(frozen=True, slots=True)
class FullCache(CacheKind):
    """The model's own cache, which keeps everything."""

    @contextmanager
    def opened(self, model: "PreTrainedModel") -> Iterator[Fresh]:
        """Nothing changes; the model makes its cache by itself."""
        yield lambda: None

    def held_bytes(self, cache: Any) -> int:
        """Bytes of all layers' tensors; layers that keep states instead of tokens have none."""
        held = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
        return sum(each.untyped_storage().nbytes() for each in held if each is not None)


@dataclass(frozen=True, slots=True)
class PlannedCache(CacheKind):
    """A cache that holds no more than a plan allows.

    Args:
        plan: The plan.
        heuristic: Chooses the tokens to keep; the one the plan was made for by default.
        adapt: Divides the plan's bytes anew for each context.
    """

    plan: Plan
    heuristic: "TokenHeuristic | None" = None
    adapt: Adaptation | None = None

    @contextmanager
    def opened(self, model: "PreTrainedModel") -> Iterator[Fresh]:
        """The plan holds in this context."""
        with budgeted(model, self.plan, self.heuristic, self.adapt) as cache:

            def fresh() -> Any:
                cache.reset()
                return cache

            yield fresh

    def held_bytes(self, cache: Any) -> int:
        """Bytes of the live storages."""
        held: int = cache.nbytes()
        return held
