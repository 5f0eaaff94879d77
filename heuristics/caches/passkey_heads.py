"""Heads that passkeys are lost without: a measured stand-in for the gates of DuoAttention.

Reference:
    Xiao et al., "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming
    Heads", ICLR 2025. https://arxiv.org/abs/2410.10819
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..cache_view import check_small_cache, mean_over
from ..probe import Probe, ProbeHeuristic, hide, needle_sizes, random_tokens
from ..registry import register

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from torch import Tensor

    from ..cache_view import CacheView


@register("passkey_heads")
@dataclass(frozen=True, slots=True)
class PasskeyHeads(ProbeHeuristic):
    """Weigh a cache by what it alone changes at passkeys when it only streams.

    Passkeys of random tokens are hidden in the prompt and repeated at its end. At the tokens where
    the next one can be looked up, a cache gets

        mean_t ||sum_h (full[h, t] - streaming[h, t]) W_O[h]||^2 / ||residual[t] + attention[t]||^2

    over its query heads ``h``, where streaming attention sees first and latest tokens only.

    A reconstruction. The authors train a gate per KV head between full and streaming attention, by
    the squared change of the last hidden states at passkeys and a price on open gates; that takes
    thousands of steps. Here every cache is measured in one forward pass, by the change of its own
    layer, and nothing is trained. In prompts too short for all of it, passkeys take half of the
    prompt and a streaming cache an eighth. Pass the numbers on to
    ``solvers.DuoAttention(importance=...)``.

    Args:
        passkeys: Passkeys in a probe, where the prompt is long enough.
        passkey_tokens: Random tokens of each, at least 2.
        sink_tokens: First tokens that streaming attention sees.
        recent_tokens: Latest tokens that streaming attention sees.
    """

    passkeys: int = 10
    passkey_tokens: int = 32
    sink_tokens: int = 128
    recent_tokens: int = 256

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, least in (("passkeys", 1), ("passkey_tokens", 2)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, but got {name}={value}.")
        check_small_cache(self.sink_tokens, self.recent_tokens)

    def probe(self, prompt: Sequence[int], vocabulary: int, draw: random.Random) -> Probe:
        """Hide passkeys in the prompt and repeat them at its end in random order."""
        count, size = needle_sizes(prompt, self.passkeys, self.passkey_tokens)
        drawn = random_tokens(count * size, vocabulary, draw)
        needles = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        return hide(prompt, needles, draw)

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the caches, [kv_heads], as a share of the squared residual stream.

        Raises:
            ValueError: If the view is not one of a probe.
        """
        lookups = view.lookups()
        outputs = view.outputs()
        lost = outputs - view.streaming_outputs(self.sink_tokens, self.recent_tokens)
        after = view.residual.float() + view.project(outputs)
        size = after.square().sum(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
        found = []
        for first in range(0, lost.shape[1], view.layer.group):
            change = torch.zeros_like(after)
            for head in range(first, first + view.layer.group):
                change += lost[:, head] @ view.output_weight[head].float()
            found.append(mean_over(change.square().sum(dim=-1) / size, lookups))
        return torch.stack(found)
