"""Which class holds the tokens of which layer."""

from collections.abc import Sequence

from kvbudget.allocator import UnsupportedModel

from .budgeted_layer import BudgetedLayer
from .cached_layer import CachedLayer
from .rectangle_layer import RectangleLayer
from .rewritten_layer import RewrittenLayer


def layer_class(cached: CachedLayer) -> type[BudgetedLayer]:
    """The class for a layer: the fastest that is exact for it.

    Raises:
        UnsupportedModel: None is.
    """
    spread = cached.is_rewritten or cached.is_chunked or cached.has_own_logits
    if (cached.is_rewritten and cached.states) or (spread and cached.readers):
        raise UnsupportedModel(
            f"Layer {cached.number} rewrites its keys or biases its logits, and keeps states or is "
            f"read by other layers besides, which kvbudget does not know how to join."
        )
    if cached.is_rewritten:
        return RewrittenLayer
    if cached.is_chunked or cached.has_own_logits:
        return RectangleLayer
    return BudgetedLayer


def ordinary_layers(windows: Sequence[int | None]) -> list[CachedLayer]:
    """Layers of which nothing but their window is special."""
    return [CachedLayer(index, index, window) for index, window in enumerate(windows)]
