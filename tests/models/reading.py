"""What a model of the zoo reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from pictures import put_in
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

PROMPT, PAD, ROWS = 48, 7, 2
BLOCKS = (1, 1, 1, 3, 1, 1, 1, 1)
TOTAL = PROMPT + sum(BLOCKS)
VOCABULARY = 90


@dataclass
class Reading:
    """Two rows of tokens, the second padded on its left, read block by block.

    Args:
        model: Who reads.
        padding: Padding columns of the second row.
        padding_id: The token in them.
        has_picture: Whether there is a picture in every row, if the model can see one.

    Attributes:
        real: 1 where a column is no padding, [rows, columns].
        ids: The tokens, [rows, columns].
        pictures: What else the model gets with the prompt.
    """

    model: PreTrainedModel
    padding: int = PAD
    padding_id: int = 0
    has_picture: bool = False

    def __post_init__(self) -> None:
        drawing = torch.Generator().manual_seed(1)
        drawn = torch.randint(3, VOCABULARY, (ROWS, TOTAL), generator=drawing)
        self.real = torch.ones_like(drawn)
        self.real[1, : self.padding] = 0
        self.ids = drawn.masked_fill(self.real == 0, self.padding_id)
        self.pictures = put_in(self.model, self.ids[:, :PROMPT]) if self.has_picture else {}
        self._takes = inspect.signature(self.model.forward).parameters

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First and last column, exclusive, of each forward."""
        first = 0
        for length in (PROMPT, *BLOCKS):
            yield first, first + length
            first += length

    def forward(self, first: int, end: int, cache: Cache | None) -> Tensor:
        """Logits of the real tokens of one block, [tokens, vocabulary]."""
        inputs = {
            "input_ids": self.ids[:, first:end],
            "attention_mask": self.real[:, :end],
            "position_ids": (self.real.cumsum(-1) - 1).clamp_min(0)[:, first:end],
            "past_key_values": cache,
            "use_cache": cache is not None,
        }
        if "mm_token_type_ids" in self.pictures:  # a picture's columns are counted another way
            inputs["position_ids"] = None if first == 0 else self._later(inputs["position_ids"])
        inputs.update(self.pictures if first == 0 else {})
        known = {name: value for name, value in inputs.items() if name in self._takes}
        return self.model(**known).logits[self.real[:, first:end].bool()].float()

    def _later(self, positions: Tensor) -> Tensor:
        """Positions behind a picture, [axes, rows, columns]."""
        return (positions + self.model.model.rope_deltas).expand(3, -1, -1)

    def through(self, cache: Cache, after: Callable[[int], None] = lambda _: None) -> list[Tensor]:
        """Logits of every block on top of the cache; calls `after` with each block's end."""
        found = []
        for first, end in self.blocks():
            found.append(self.forward(first, end, cache))
            after(end)
        return found
