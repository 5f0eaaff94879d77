"""The kind of plug-in that turns a cut cache into a loss, and the names of such plug-ins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ..registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from ..cut_view import CutView


class Measure(ABC):
    """Say what one layer's caches lose at each level.

    A subclass is a frozen dataclass that works without arguments and has one method, ``loss``.

    Attributes:
        in_nats: Whether losses are divergences in nats per token, which is what a running model
            can be found to lose.
        needs_residual: Whether ``loss`` reads ``view.residual_norm``; costs a forward pass more.
        needs_gradient: Whether ``loss`` reads ``view.gradient``; costs a forward pass of the future
            tokens and a backward pass for each label sample, and the memory of a full cache.
        needs_reruns: Whether ``loss`` calls ``view.divergence``, which runs the model; costs the
            memory of a full cache, and time for each call.
    """

    __slots__ = ()

    in_nats: ClassVar[bool] = False
    needs_residual: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False
    needs_reruns: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name under which the measure is registered."""
        return name_of(self)

    @abstractmethod
    def loss(self, view: CutView) -> Tensor:
        """Weigh what the future queries lose.

        Returns:
            Loss, [kv_heads, levels], float64, never negative, 0 at a level that keeps everything.
        """


class RefinedMeasure(Measure):
    """A measure that estimates, and has a few of its estimates replaced by exact losses.

    After all layers of a prompt have been estimated, the model runs again with one cache cut to
    one level, where it matters most; see ``heuristics.refinement``. Costs the memory of a full
    cache and, for each rerun, a forward pass of the future tokens.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def rerun_passes(self) -> float:
        """Most work for reruns, in forward passes of the whole prompt."""


_measures: Registry[Measure] = Registry("measure", Measure)
register = _measures.register
get = _measures.get
names = _measures.names
name_of = _measures.name_of
build = _measures.build
registration_scope = _measures.scope
