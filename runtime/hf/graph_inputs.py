"""What a compiled forward is given, without what would change its shape from token to token."""

from typing import Any

from torch import Tensor

from .cache import BudgetedCache

_MASK = "attention_mask"


def prepared_for_graphs(cache: BudgetedCache, new: int, keywords: dict[str, Any]) -> dict[str, Any]:
    """Count a decoded token ahead, and leave out a mask that tells what the cache knows.

    A padding mask has one more column at every token. It is left out where nothing is padding,
    and where the padding is that of the prompt and the model need not count positions by it.

    Args:
        cache: What the forward reads into.
        new: Tokens of each row.
        keywords: Of the call.

    Returns:
        The keywords for the compiled forward.
    """
    mask = keywords.get(_MASK)
    if isinstance(mask, Tensor) and mask.dim() == 2:
        has_positions = keywords.get("position_ids") is not None
        if _says_nothing(mask, cache, new, has_positions):
            keywords = {**keywords, _MASK: None}
    if cache.graph_calls is not None:
        cache.graph_calls.expect(new)
    return keywords


def _says_nothing(mask: Tensor, cache: BudgetedCache, new: int, has_positions: bool) -> bool:
    columns = cache.stack.seen_tokens + new
    if mask.shape[1] != columns:
        return False
    if bool(mask.all()):
        return True
    real = cache.stack.layers[0].real
    if real is None or new != 1 or not has_positions:
        return False
    prompt = real.shape[1]
    told = mask[:, :prompt].bool().to(real.device)
    return bool((told == real).all()) and bool(mask[:, prompt:].all())
