"""Queries, keys and values out of one projection."""

from torch import Tensor


def grouped_heads(fused: Tensor, kv_heads: int, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Take apart a projection that lists each KV head with the query heads that read it.

    Args:
        fused: [batch, new, features]: for each KV head its queries, its key and its value.
        kv_heads: KV heads.
        head_dim: Numbers of a head.

    Returns:
        Queries, keys and values, [batch, heads, new, head_dim] with as many heads as there are.
    """
    groups = fused.unflatten(-1, (kv_heads, -1, head_dim))
    queries = groups[..., :-2, :].flatten(2, 3).transpose(1, 2)
    return queries, groups[..., -2, :].transpose(1, 2), groups[..., -1, :].transpose(1, 2)
