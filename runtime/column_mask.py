"""The mask of tokens that follow a prompt, held against what the cache will let them see."""

import torch
from torch import Tensor

from .attention_call import AttentionCall


def check_mask(call: AttentionCall, real: Tensor | None, window: int | None) -> None:
    """Refuse a mask that hides or shows other columns than the prompt's padding decides.

    The cache knows its columns by position alone: padding is never stored, and everything else up
    to the query, inside the window, is seen. A mask that says otherwise would be ignored.

    Args:
        call: Tokens after the prompt, with their mask.
        real: Which columns of the prompt are no padding, [batch, prompt]; None if all are.
        window: Sliding window in tokens, None for full attention.

    Raises:
        ValueError: Says what the mask does.
    """
    seen = call.seen()
    if seen is None:
        return
    new, columns = seen.shape[-2:]
    if not bool(call.real_tokens().all()):
        raise ValueError(
            f"Only the first prompt may be padded, but a later block of {new} tokens holds "
            f"padding. Feed such rows one by one."
        )
    if torch.equal(seen, expected_columns(seen, real, window).expand_as(seen)):
        return
    if bool(seen.triu(columns - new + 1).any()):
        raise ValueError(
            "Tokens of a later block must not see tokens behind them, but the mask lets them, as "
            "the places of a picture do: the first block must hold every picture whole."
        )
    raise ValueError(
        f"The attention mask of a later block must show all {columns} columns before it but "
        f"the prompt's padding, because the cache cannot hide tokens it holds. "
        f"Pass the mask that belongs to the prompt, or none."
    )


def expected_columns(seen: Tensor, real: Tensor | None, window: int | None) -> Tensor:
    """Columns that the newest queries see by position and padding, [batch or 1, new, columns]."""
    new, columns = seen.shape[-2:]
    column = torch.arange(columns, device=seen.device)
    query = torch.arange(columns - new, columns, device=seen.device)[:, None]
    by_position = column <= query
    if window is not None:
        by_position = by_position & (column > query - window)
    if real is None:
        return by_position[None]
    later = torch.ones(len(real), columns - real.shape[1], dtype=torch.bool, device=real.device)
    return by_position & torch.cat([real, later], 1)[:, None]
