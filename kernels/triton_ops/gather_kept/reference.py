"""Gathering of kept tokens in plain torch: the CPU path and the specification."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_kept(
    keep: Tensor,
    keys: Tensor,
    values: Tensor,
    out_keys: Tensor,
    out_values: Tensor,
    starts: Tensor,
) -> None:
    """Do what the package's `gather_kept` documents; arguments are not checked again."""
    lengths, places = keep.sum(-1).flatten().tolist(), keep.nonzero()[:, 2]
    parts = list(zip(starts.tolist(), lengths, places.split(lengths), strict=True))
    for flat, tokens in ((out_keys, keys), (out_values, values)):
        pairs = (pair for sequence in tokens for pair in sequence)
        for pair, (start, length, chosen) in zip(pairs, parts, strict=True):
            # straight into place: no copy of all that is kept beside it
            torch.index_select(pair, 0, chosen, out=flat[start : start + length])
