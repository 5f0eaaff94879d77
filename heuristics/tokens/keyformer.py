"""Attention that a token has gathered so far, with noise and a temperature in the softmax.

Reference:
    Adnan et al., "Keyformer: KV Cache Reduction through Key Tokens Selection for Efficient
    Generative Inference", MLSys 2024. https://arxiv.org/abs/2403.09054
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kvbudget.kernels.attention import chunks, masked_softmax

from ..draws import columns_before, gumbel, oldest_column
from ..heuristic import RunningHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView

QUERIES_PER_DRAW = 32


@register("keyformer")
@dataclass(frozen=True, slots=True)
class Keyformer(RunningHeuristic):
    """Score a token by the sum over all queries of softmax((logits + noise) / temperature).

    The noise is drawn from the standard Gumbel distribution anew for every query head, query and
    token. The colder the softmax, the nearer the expected score comes to accumulated attention;
    at the default temperatures it is a flatter version of it. The temperature is ``tau_init``
    for the prompt and moves in even steps to ``tau_end`` over ``max_new_tokens`` decoded queries.

    Adnan et al. sum the scores over the batch, count padding, and let the temperature move on
    past ``tau_end``; here each sequence has its own scores, padding does not count, and
    ``tau_end`` is the last temperature. They decide per query head; here the heads that share a
    cache are averaged. Logits of learned sinks get noise too.

    Args:
        tau_init: Temperature for the prompt. The authors use 1.
        tau_end: Temperature after ``max_new_tokens`` decoded queries. The authors use 2.
        max_new_tokens: Decoded queries over which the temperature moves. The authors use the
            number of tokens to generate.
        noise: Whether to draw noise; without it the scores are deterministic.
        seed: Seed of the noise. The same seed draws the same noise for the same layer, query
            head, query and token, whatever the batch, the padding and the blocks of queries.
    """

    draws: ClassVar[bool] = True

    tau_init: float = 1.0
    tau_end: float = 2.0
    max_new_tokens: int = 256
    noise: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("tau_init", "tau_end"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"`{name}` must be above 0, but got {name}={value}.")
        if self.max_new_tokens < 1:
            raise ValueError(
                "`max_new_tokens` must be at least 1, but got "
                f"max_new_tokens={self.max_new_tokens}."
            )

    def observe(self, view: LayerView) -> Tensor:
        """Add what the new queries give, [batch, kv_heads, tokens, 1]."""
        total = view.known_state(self.channels)[..., 0]
        for rows in chunks(view.new, QUERIES_PER_DRAW):
            total = total + self._shares(view, rows).mean(dim=2).sum(dim=2)
        return total.unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by the sum so far, [batch, kv_heads, tokens]."""
        return view.known_state(self.channels)[..., 0]

    def _shares(self, view: LayerView, rows: slice) -> Tensor:
        """What queries give each token, [batch, kv_heads, group, rows, tokens]."""
        kv_heads, group = view.valid.shape[1], view.group
        logits = view.logits(rows)
        sinks = None if view.sinks is None else view.sinks.float().view(kv_heads, group, 1, 1)
        if self.noise:
            tokens = columns_before(view)[:, :, None, None]
            logits += self._noise(view, rows, tokens)
            if sinks is not None:
                sinks = sinks + self._noise(view, rows, torch.full_like(tokens[..., :1], -1))
        tau = self._temperature(view, rows)
        sinks = None if sinks is None else sinks / tau
        return masked_softmax(logits / tau, view.seen(rows).unsqueeze(2), sinks)

    def _noise(self, view: LayerView, rows: slice, tokens: Tensor) -> Tensor:
        """Noise for each query head, query and token, [batch, kv_heads, group, rows, tokens]."""
        heads = torch.arange(view.queries.shape[1], device=tokens.device)
        heads = heads.view(view.valid.shape[1], view.group, 1, 1)
        queries = view.query_positions[rows] - oldest_column(view)
        return gumbel(self.seed, view.layer, heads, queries[:, :, None, :, None], tokens)

    def _temperature(self, view: LayerView, rows: slice) -> float | Tensor:
        """Temperature of each query, [rows, 1], or one for all."""
        if view.prompt_columns is None:
            return self.tau_init
        decoded = view.query_positions[rows, None] - view.prompt_columns + 1
        step = (self.tau_end - self.tau_init) / self.max_new_tokens
        return self.tau_init + step * decoded.clamp(0, self.max_new_tokens)
