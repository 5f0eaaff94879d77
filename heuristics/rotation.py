"""Rotary position embedding, as a value that can be applied and undone.

Reference:
    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", Neurocomputing,
    2024. https://arxiv.org/abs/2104.09864
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """How one layer turns queries and keys by their position.

    The first ``2 * pairs`` numbers of a head turn: number ``c`` with number ``c + pairs``, by
    ``position * frequencies[c]`` radians, and both are multiplied by ``scaling``. The rest stays.

    Args:
        frequencies: Radians per position of each pair, [pairs], float32.
        scaling: Factor on what turns.
    """

    frequencies: Tensor
    scaling: float = 1.0

    def apply(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Turn vectors as the model does.

        Args:
            vectors: [..., tokens, head_dim], float32.
            positions: Columns, int64, broadcastable to [..., tokens].
        """
        return self._turned(vectors, positions, 1.0, self.scaling)

    def undo(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Turn vectors back; arguments as in ``apply``."""
        return self._turned(vectors, positions, -1.0, 1.0 / self.scaling)

    def mean(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Mean of what ``apply`` makes of the same vectors at each of several positions.

        Args:
            vectors: [..., head_dim], float32.
            positions: Columns, int64, [positions].
        """
        angles = positions.unsqueeze(-1) * self.frequencies.to(vectors.device)
        cos, sin = angles.cos().mean(dim=0), angles.sin().mean(dim=0)
        return _turn(vectors, cos * self.scaling, sin * self.scaling)

    def _turned(self, vectors: Tensor, positions: Tensor, sign: float, scaling: float) -> Tensor:
        angles = positions.unsqueeze(-1) * self.frequencies.to(vectors.device)
        return _turn(vectors, angles.cos() * scaling, angles.sin() * (sign * scaling))


def _turn(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair by an angle, given as its cosine and sine, [..., pairs]."""
    pairs = cos.shape[-1]
    first, second, rest = vectors.tensor_split((pairs, 2 * pairs), dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
