"""Attention that a token receives when the model reads the prompt a second time.

Reference:
    Kim et al., "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction",
    NeurIPS 2025. https://arxiv.org/abs/2505.23416
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch

from ..registry import register
from ..rereading import Part, RereadingHeuristic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ..layer_view import LayerView

SINKS = 4
LEAST_PART_TOKENS = 16


@register("kv_zip")
@dataclass(frozen=True, slots=True)
class KVZip(RereadingHeuristic):
    """Score a token by the most attention that any query gives it when the prompt is repeated.

    A model that can repeat a prompt from its caches can answer any question about it, so what it
    looks at while repeating is worth keeping whatever is asked. The prompt is repeated in parts of
    equal length, each behind the whole prompt. Attention is shared among the part's tokens, the
    first tokens of the prompt and what has been repeated of the part; the maximum is taken over
    queries and over the query heads that share a cache.

    This is a reconstruction. Kim et al. put a sentence in the model's chat format before each part,
    which asks to repeat it, beginning with the last tokens of the part before. The sentence needs a
    tokenizer, so here there is none unless its ids are given; those last tokens are read again. Kim
    et al. leave a short part at the end; here all are of one length, so that their scores compare,
    and shorter where the model's positions run out. Kim et al. cut once and keep all that is
    decoded; here too later tokens stand above the prompt's, and once they alone fill a cache the
    oldest of them go. Of a prompt that comes in blocks only the first one is judged; the others
    count as later. The prompt must be given as token ids.

    A prompt costs another forward pass over twice its tokens, and the attention among each part's
    tokens once more, step by step: reading takes three to four times as long where attention is
    little of the work, more in a small model. Memory stays linear in tokens, and only one layer's
    keys and values are alive at a time.

    Args:
        part_tokens: Most tokens of a part. Kim et al. use 2000, kvpress 2048.
        lead_tokens: Last tokens of the part before that a part begins with. Kim et al. use 8.
        instruction: Token ids that every part begins with, with spaces between them:
            ``" ".join(map(str, tokenizer(text, add_special_tokens=False)["input_ids"]))``.
    """

    # only what is read again is looked at, and that is shown when the prompt comes
    reads_queries: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False

    part_tokens: int = 2048
    lead_tokens: int = 8
    instruction: str = ""

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.part_tokens < LEAST_PART_TOKENS:
            raise ValueError(
                f"`part_tokens` must be at least {LEAST_PART_TOKENS}, but got "
                f"part_tokens={self.part_tokens}."
            )
        if self.lead_tokens < 0:
            raise ValueError(
                f"`lead_tokens` must be at least 0, but got lead_tokens={self.lead_tokens}."
            )
        if not all(word.isdecimal() for word in self.instruction.split()):
            raise ValueError(
                "`instruction` must be token ids with spaces between them, but got "
                f"instruction={self.instruction!r:.60}."
            )

    def parts(self, prompt: Sequence[int], positions: int | None) -> list[Part]:
        """Cut the prompt into as few parts of equal length as its positions allow."""
        instruction = tuple(map(int, self.instruction.split()))
        tokens, most = len(prompt), self.part_tokens
        if positions is not None:
            room = positions - len(instruction)
            whole = tokens <= min(most, room)
            most = min(most, room if whole else room - self.lead_tokens)
        if most < min(tokens, LEAST_PART_TOKENS):
            raise ValueError(
                f"KVZip lets the model read the {tokens} tokens of the prompt again behind it, but "
                f"the model has only {positions} positions left there. Shorten the prompt or the "
                "instruction."
            )
        number = -(-tokens // most)
        borders = [index * tokens // number for index in range(number + 1)]
        return [
            Part(first, last, min(SINKS, first), (*instruction, *prompt[self._lead(first) : last]))
            for first, last in pairwise(borders)
        ]

    def observe(self, view: LayerView) -> Tensor:
        """Raise the maximum by the queries of a second reading.

        Returns:
            [batch, kv_heads, tokens, 1]: 0 for what no second reading has judged, else 1 more than
            the maximum.
        """
        state = view.known_state(self.channels)[..., 0]
        for rows, probabilities in view.attention_chunks():
            # what a query gives to its own token says nothing about later ones
            own = view.query_positions[rows, None] == view.positions.unsqueeze(2)
            given = probabilities.masked_fill(own.unsqueeze(2), 0.0)
            state = torch.maximum(state, 1 + given.amax(dim=(2, 3)))
        return state.unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by the maximum, at most 2; later tokens above that, [batch, kv_heads, tokens]."""
        state = view.known_state(self.channels)[..., 0]
        return torch.where(state > 0, state, 2.0 + view.rank())

    def _lead(self, first: int) -> int:
        return max(0, first - self.lead_tokens)
