"""The mask that a model makes where its attention goes through kvbudget."""

from typing import Any

from torch import Tensor
from transformers.masking_utils import sdpa_mask

UNTOLD = -1
"""What a cache says of columns in place of their number, which would change from token to token."""


def registered_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    attention_mask: Tensor | None = None,
    **others: Any,
) -> Tensor | None:
    """The mask of transformers' own attention; transformers fixes the signature.

    In a graph of one decoded token the columns are as many as those of the padding mask. Without
    one there is no mask: the cache knows by position what the token sees.

    Returns:
        [batch, 1, new, columns], bool; None for plain causal order.
    """
    if kv_length == UNTOLD:
        if attention_mask is None:
            return None
        kv_length, q_offset = attention_mask.shape[-1], UNTOLD
    if isinstance(q_offset, int) and q_offset == UNTOLD:
        q_offset = kv_length - q_length
    mask: Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,  # type: ignore[arg-type]
        attention_mask=attention_mask,
        **others,
    )
    return mask
