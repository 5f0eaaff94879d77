"""Neighbours among some of the tokens: what is nearby, and runs of consecutive ones.

Empty places stand before, behind and between tokens, differently in every head. Here they are
never anybody's neighbour, so they change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d, pad


def largest_nearby(mass: Tensor, among: Tensor, kernel: int) -> Tensor:
    """Find the largest mass among the ``kernel`` nearest tokens.

    Args:
        mass: [batch, kv_heads, tokens], never negative; anything where ``among`` is False.
        among: Which tokens count, bool, as ``mass``.
        kernel: Width, odd; the token in the middle counts.

    Returns:
        As ``mass``; arbitrary where ``among`` is False.
    """
    order, dense = _packed(mass, among, 0.0)
    pooled = max_pool1d(dense, kernel, stride=1, padding=kernel // 2)
    return torch.empty_like(pooled).scatter_(-1, order, pooled)


def mean_nearby(mass: Tensor, among: Tensor, kernel: int) -> Tensor:
    """Average the mass of the ``kernel`` nearest tokens, as zero where there are none.

    Args and returns as ``largest_nearby``.
    """
    order, dense = _packed(mass, among, 0.0)
    pooled = avg_pool1d(dense, kernel, stride=1, padding=kernel // 2)
    return torch.empty_like(pooled).scatter_(-1, order, pooled)


def runs(mass: Tensor, among: Tensor, length: int) -> Tensor:
    """Cut the tokens into consecutive runs, counted from the oldest.

    Args:
        mass: [batch, kv_heads, tokens], finite where ``among``.
        among: Which tokens count, bool, as ``mass``.
        length: Tokens per run; the last run of a head may be shorter.

    Returns:
        Mass by run, [batch, kv_heads, runs, length]; -inf where a run has no token.
    """
    _, dense = _packed(mass, among, -torch.inf)
    missing = -dense.shape[-1] % length
    whole = pad(dense, (0, missing), value=-torch.inf)
    return whole.view(*mass.shape[:-1], -1, length)


def spread(by_run: Tensor, among: Tensor, length: int) -> Tensor:
    """Give every token the number of its run.

    Args:
        by_run: [batch, kv_heads, runs], for the runs that ``runs`` makes.
        among: Which tokens count, bool, [batch, kv_heads, tokens].
        length: Tokens per run.

    Returns:
        As ``among``; arbitrary where it is False.
    """
    order = among.cumsum(dim=-1) - 1  # -1 before the first
    return by_run.gather(-1, order.clamp_min(0) // length)


def _packed(mass: Tensor, among: Tensor, fill: float) -> tuple[Tensor, Tensor]:
    """Move the tokens that count to the front, in their order."""
    order = (~among).to(torch.uint8).argsort(dim=-1, stable=True)
    return order, mass.masked_fill(~among, fill).gather(-1, order)
