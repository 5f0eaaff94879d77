"""Moving of rows in plain torch: the CPU path and the specification."""

from __future__ import annotations

from torch import Tensor

# a part is read before it is written; this bounds what is held meanwhile
_PART_ROWS = 2048


def move_rows(keys: Tensor, values: Tensor, sources: Tensor, targets: Tensor) -> None:
    """Do what the package's `move_rows` documents; arguments are not checked again."""
    for first in range(0, len(sources), _PART_ROWS):
        part = slice(first, first + _PART_ROWS)
        source, target = sources[part], targets[part]
        for storage in (keys, values):
            storage.index_copy_(0, target, storage.index_select(0, source))
