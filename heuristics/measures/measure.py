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
        needs_residual: Whether ``loss`` reads ``view.residual_norm``; costs a forward pass more.
        needs_gradient: Whether ``loss`` reads ``view.gradient``; costs a backward pass for each
            label sample.
    """

    __slots__ = ()

    needs_residual: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False

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


_measures: Registry[Measure] = Registry("measure", Measure)
register = _measures.register
get = _measures.get
names = _measures.names
name_of = _measures.name_of
build = _measures.build
registration_scope = _measures.scope
