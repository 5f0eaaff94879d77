"""What is known of a layer that keeps keys and values, before it has read anything."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """A layer of a model that keeps keys and values.

    Args:
        index: Place among the layers that do.
        number: Place among all layers of the model.
        window: Most tokens a query can reach back, its own included; None for all.
        is_chunked: Whether a query reaches back to the start of its chunk of `window` tokens.
        states: Convolution or recurrent states that the layer keeps besides, 0 for none.
        readers: Attentions of other layers that read the same keys and values.
        is_rewritten: Whether the model rewrites keys or values between cache and attention, so
            that all its heads have to hold the same tokens.
        has_own_logits: Whether the model adds a bias or a sink of its own to each query's logits.
        calls: Attention calls that read these keys and values in one forward.
    """

    index: int
    number: int
    window: int | None
    is_chunked: bool = False
    states: int = 0
    readers: int = 0
    is_rewritten: bool = False
    has_own_logits: bool = False
    calls: int = 1
