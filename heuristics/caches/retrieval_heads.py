"""Heads that look up repeats: how RazorAttention finds its retrieval heads.

Reference:
    Tang et al., "RazorAttention: Efficient KV Cache Compression Through Retrieval Heads", ICLR
    2025. https://arxiv.org/abs/2407.15891
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..cache_view import mean_over
from ..probe import Probe, ProbeHeuristic, random_tokens
from ..registry import register

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from torch import Tensor

    from ..cache_view import CacheView


@register("retrieval_heads")
@dataclass(frozen=True, slots=True)
class RetrievalHeads(ProbeHeuristic):
    """Weigh a cache by how strongly its best head attends to repeats of random tokens.

    The model reads the first token of the prompt and then random tokens, several times over. At a
    token that has been there before,

        echo       is the attention to its earlier copies,
        induction  is the attention to the tokens right behind these,

    both as means over such tokens. A cache gets its best head's

        (1 - echo_weight) * induction + echo_weight * echo

    The authors release no code. They take the heads of highest induction and a few of highest
    echo, 14 % and 1 % of all as others report it; the weight follows these shares. They protect a
    whole group if one of its heads is a retrieval head, hence the best. Their probe does not depend
    on prompts and has random tokens four times, reportedly 2500; here it is no longer than the
    prompt. None of these numbers was checked against the authors. Pass the result on to
    ``solvers.RazorAttention(importance=...)``.

    Args:
        random_tokens: Random tokens, where the prompt is long enough.
        repeats: How often they stand in the probe, at least 2.
        echo_weight: Share of the echo score, in 0..1.
    """

    random_tokens: int = 2500
    repeats: int = 4
    echo_weight: float = 1 / 15

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, least in (("random_tokens", 2), ("repeats", 2)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, but got {name}={value}.")
        if not 0 <= self.echo_weight <= 1:
            raise ValueError(
                f"`echo_weight` must be in 0..1, but got echo_weight={self.echo_weight}."
            )

    def probe(self, prompt: Sequence[int], vocabulary: int, draw: random.Random) -> Probe:
        """Repeat random tokens behind the first token of the prompt.

        Raises:
            ValueError: If the prompt is too short for two tokens as often as they are repeated.
        """
        count = min(self.random_tokens, (len(prompt) - 1) // self.repeats)
        if count < 2:
            raise ValueError(
                f"`prompt` must have at least {2 * self.repeats + 1} tokens for {self.repeats} "
                f"repeats, but got {len(prompt)}."
            )
        drawn = random_tokens(count, vocabulary, draw)
        copies = range(1, 1 + count * (self.repeats - 1))
        return Probe(
            tokens=(prompt[0], *drawn * self.repeats),
            copied_from=(*[-1] * (1 + count), *copies),
        )

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the caches by their best heads, [kv_heads], in 0..1.

        Raises:
            ValueError: If the view is not one of a probe.
        """
        kv_heads, tokens = view.layer.keys.shape[1], view.layer.new
        own = torch.arange(tokens, device=view.layer.keys.device)
        scores = torch.zeros(len(view.real_tokens()), view.layer.queries.shape[1], tokens)
        scores = scores.to(own.device)
        for rows, probabilities in view.layer.attention_chunks():
            attention = probabilities.flatten(1, 2)
            source = view.sources()[rows]
            for _ in range(self.repeats - 1):
                echo = _at(attention, source, source >= 0)
                behind = _at(attention, source + 1, (source >= 0) & (source + 1 < own[rows]))
                scores[:, :, rows] += (1 - self.echo_weight) * behind + self.echo_weight * echo
                earlier = view.sources()[source.clamp_min(0)]
                source = torch.where(source >= 0, earlier, source)
        return mean_over(scores, view.copies()).view(kv_heads, -1).amax(dim=-1)


def _at(attention: Tensor, column: Tensor, wanted: Tensor) -> Tensor:
    """Attention of each row to a column of its own, [batch, heads, rows], 0 where not wanted."""
    index = (column * wanted).view(1, 1, -1, 1).expand(*attention.shape[:3], 1)
    return attention.gather(-1, index).squeeze(-1) * wanted
