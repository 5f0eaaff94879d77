"""Heads that look at a needle when it has to be repeated: the head score of HeadKV.

Reference:
    Fu et al., "Not All Heads Matter: A Head-Level KV Cache Compression Method with Integrated
    Retrieval and Reasoning", ICLR 2025. https://arxiv.org/abs/2410.19258
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..cache_view import mean_over
from ..probe import Probe, ProbeHeuristic, hide, needle_sizes, random_tokens
from ..registry import register

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from torch import Tensor

    from ..cache_view import CacheView


@register("head_kv")
@dataclass(frozen=True, slots=True)
class HeadKV(ProbeHeuristic):
    """Weigh a cache by how much its heads attend to a needle while they repeat it.

    A needle of ``m`` random tokens is hidden in the prompt and repeated at its end. At every token
    whose successor has to be looked up, a query head gets its attention to those of the ``m``
    tokens it attends to most that belong to the needle. A cache gets the mean over its query heads
    and these tokens.

    The authors hide sentences in texts of their own and ask for them in words, count an example
    only if the model answers well, and add reasoning needles, of which only the answer counts.
    Here the user's prompts are the haystacks, whether or not the model finds the needle is not
    asked, and the first token of the repeated needle takes the place of a question, so that no
    tokenizer is needed. Pass the numbers on to ``solvers.HeadKV(importance=...)``.

    Args:
        needle_tokens: Tokens of the needle, at least 2; a quarter of a short prompt.
    """

    needle_tokens: int = 32

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.needle_tokens < 2:
            raise ValueError(
                f"`needle_tokens` must be at least 2, but got needle_tokens={self.needle_tokens}."
            )

    def probe(self, prompt: Sequence[int], vocabulary: int, draw: random.Random) -> Probe:
        """Hide a needle in the prompt and repeat it at its end."""
        _, size = needle_sizes(prompt, 1, self.needle_tokens)
        return hide(prompt, [random_tokens(size, vocabulary, draw)], draw)

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the caches by the mean of their heads, [kv_heads], in 0..1.

        Raises:
            ValueError: If the view is not one of a probe.
        """
        needle = self._needle(view)
        num_needle = needle.sum(dim=-1).clamp_min(1).view(-1, 1, 1, 1)
        found = []
        for _, attention in view.layer.attention_chunks():
            heads = attention.flatten(1, 2)
            highest = heads.topk(int(num_needle.max()), dim=-1).values
            last = (num_needle - 1).expand(*heads.shape[:3], 1)
            counted = (heads >= highest.gather(-1, last)) & needle[:, None, None]
            found.append((heads * counted).sum(dim=-1))
        per_head = mean_over(torch.cat(found, dim=-1), view.lookups())
        return per_head.view(view.layer.keys.shape[1], -1).mean(dim=-1)

    def _needle(self, view: CacheView) -> Tensor:
        """Which columns are repeated later on, [batch, tokens], bool."""
        copies = view.copies()
        source = view.sources().clamp_min(0).expand_as(copies)
        hits = torch.zeros_like(source).scatter_add_(1, source, copies.long())
        return hits > 0
