"""What a cache heuristic sees of one layer: the view of its tokens and what the layer writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kvbudget.kernels.attention import TOKENS_PER_CHUNK, chunks, masked_softmax

if TYPE_CHECKING:
    from torch import Tensor

    from .layer_view import LayerView


ROWS_PER_CHUNK = 256
MOST_STREAMED = 8
"""A small cache in ``streaming_outputs`` holds at most one part in so many of a sequence."""


@dataclass(frozen=True, slots=True, eq=False)
class CacheView:
    """One layer during a full forward pass over a prompt, nothing evicted.

    Args:
        layer: View of the layer that holds every token, and the queries of every token.
        residual: Residual stream before the attention block, [batch, tokens, hidden].
        output_weight: The part of the output projection that each query head writes through,
            [heads, value_dim, hidden].
        gradient: Derivative of the loss on labels sampled from the model's own predictions, by
            this layer's attention output, [label_samples, heads, tokens, value_dim], float32; the
            same for every sequence. None unless the heuristic asks for it.
        copied_from: For each column that of the earlier token it repeats, or -1, int64, [tokens];
            the same for every sequence. None unless the prompt is a probe.

    Raises:
        ValueError: If the view does not hold one query per token, or ``gradient`` or
            ``copied_from`` do not hold one entry per token.
    """

    layer: LayerView
    residual: Tensor
    output_weight: Tensor
    gradient: Tensor | None = None
    copied_from: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse a view that lacks queries."""
        new, tokens = self.layer.new, self.layer.valid.shape[-1]
        if new != tokens:
            raise ValueError(
                f"`layer` must hold one query per token, but got {new} queries for {tokens} "
                "tokens. Make the view in one forward pass over the whole prompt."
            )
        for name, axis in (("gradient", 2), ("copied_from", 0)):
            given = getattr(self, name)
            if given is not None and given.shape[axis] != tokens:
                raise ValueError(
                    f"`{name}` must hold one entry per token, {tokens}, but got "
                    f"{given.shape[axis]}."
                )

    def outputs(self, chunk: int = ROWS_PER_CHUNK) -> Tensor:
        """Attention output of every query head, before the output projection.

        Args:
            chunk: Queries treated at a time, so that memory is linear in tokens.

        Returns:
            Outputs, [batch, heads, tokens, value_dim], float32; 0 where a query sees nothing.
        """
        found = (self._outputs(p) for _, p in self.layer.attention_chunks(chunk))
        return torch.cat(list(found), dim=3).flatten(1, 2)

    def streaming_outputs(self, sink_tokens: int, recent_tokens: int) -> Tensor:
        """What ``outputs`` would be if every query saw only first and latest tokens.

        In a sequence shorter than ``MOST_STREAMED`` times both together they shrink in
        proportion, so that short prompts tell something too.

        Args:
            sink_tokens: First tokens of the sequence that stay, at least 0.
            recent_tokens: Latest tokens that stay, the query's own included, at least 1.
        """
        small = sink_tokens + recent_tokens
        allowed = (self.real_tokens().sum(dim=-1) // MOST_STREAMED).clamp(1, small)
        sinks = (allowed * sink_tokens // small).view(-1, 1, 1, 1)
        recent = allowed.view(-1, 1, 1, 1) - sinks
        rank = self.layer.rank()
        found = []
        for rows in chunks(self.layer.new, ROWS_PER_CHUNK):
            behind = rank[:, :, rows, None] - rank[:, :, None, :]
            kept = (rank[:, :, None, :] <= sinks) | (behind < recent)
            found.append(self._outputs(self._kept_attention(rows, kept)))
        return torch.cat(found, dim=3).flatten(1, 2)

    def project(self, outputs: Tensor) -> Tensor:
        """What outputs of all query heads add to the residual stream.

        A bias of the projection and a norm behind it are left out.

        Args:
            outputs: [batch, heads, tokens, value_dim], float32.

        Returns:
            [batch, tokens, hidden], float32.
        """
        written = torch.zeros_like(self.residual, dtype=torch.float32)
        for head, weight in enumerate(self.output_weight):
            written += outputs[:, head] @ weight.float()
        return written

    def real_tokens(self) -> Tensor:
        """Which columns hold a token and no padding, [batch, tokens], bool."""
        return self.layer.valid.any(dim=1)

    def copies(self) -> Tensor:
        """Which tokens of a probe repeat a token that is there, [batch, tokens], bool.

        Raises:
            ValueError: If the view is not one of a probe.
        """
        source, real = self.sources(), self.real_tokens()
        return real & (source >= 0) & real[:, source.clamp_min(0)]

    def lookups(self) -> Tensor:
        """At which tokens of a probe the next one can be copied, [batch, tokens], bool.

        These are the tokens that repeat one, and whose successor repeats the successor of that.

        Raises:
            ValueError: If the view is not one of a probe.
        """
        source, copies = self.sources(), self.copies()
        goes_on = torch.zeros_like(copies)
        goes_on[:, :-1] = copies[:, 1:] & (source[1:] == source[:-1] + 1)
        return copies & goes_on

    def sources(self) -> Tensor:
        """``copied_from``, [tokens].

        Raises:
            ValueError: If the view is not one of a probe.
        """
        if self.copied_from is None:
            raise ValueError(
                "`view` must hold `copied_from`, but it has none. Show a probe to the model, as "
                "measure_importance does."
            )
        return self.copied_from

    def _kept_attention(self, rows: slice, kept: Tensor) -> Tensor:
        """``LayerView.probabilities`` over the tokens kept, [batch, kv_heads, rows, tokens]."""
        layer = self.layer
        sinks = None
        if layer.sinks is not None:
            sinks = layer.sinks.float().view(layer.valid.shape[1], -1, 1, 1)
        return masked_softmax(layer.logits(rows), (layer.seen(rows) & kept).unsqueeze(2), sinks)

    def _outputs(self, probabilities: Tensor) -> Tensor:
        """[batch, kv_heads, group, rows, value_dim]."""
        shares = probabilities.flatten(2, 3)  # [batch, kv_heads, group * rows, tokens]
        outputs = shares.new_zeros(*shares.shape[:-1], self.layer.values.shape[-1])
        for part in chunks(shares.shape[-1], TOKENS_PER_CHUNK):
            # an empty slot may hold NaN, and 0 * NaN is NaN
            values = self.layer.values[:, :, part].float()
            values = values.masked_fill(~self.layer.valid[:, :, part, None], 0.0)
            outputs += shares[..., part] @ values
        return outputs.view(*probabilities.shape[:-1], -1)


def mean_over(per_token: Tensor, counted: Tensor) -> Tensor:
    """Mean over the tokens that count; 0 if none does.

    Args:
        per_token: [batch, ..., tokens]; what stands at other tokens may be NaN.
        counted: [batch, tokens], bool.

    Returns:
        [...], in the dtype of ``per_token``.
    """
    between = (1,) * (per_token.dim() - 2)
    mask = counted.view(len(counted), *between, -1)
    total = per_token.masked_fill(~mask, 0.0).sum(dim=(0, -1))
    return total / counted.sum().clamp_min(1)


def check_small_cache(sink_tokens: int, recent_tokens: int) -> None:
    """Refuse sizes that ``streaming_outputs`` cannot use.

    Raises:
        ValueError: Says which is too small.
    """
    for name, value, least in (
        ("sink_tokens", sink_tokens, 0),
        ("recent_tokens", recent_tokens, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, but got {name}={value}.")
