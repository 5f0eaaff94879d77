"""What future queries lose when the caches of one layer are cut to each of many levels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

from .attention import attention_logits, chunks, linear_bias, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


class Cut(NamedTuple):
    """What some of the future queries lose at each level.

    Attributes:
        rows: Which future queries.
        kept_mass: Share of the full attention that is still there, [heads, rows, levels],
            float32, in [0, 1]; exactly 1 at a level that keeps everything.
        delta: Output at the level minus full output, [heads, rows, levels, value_dim], float32;
            exactly 0 at a level that keeps everything.
    """

    rows: slice
    kept_mass: Tensor
    delta: Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CutView:
    """One layer of one prompt, split into a context that may be cut and future tokens.

    Every KV head lists the context tokens in its own order, the ones to keep longest first, so
    that a level is a prefix of that order. Future tokens are never cut.

    Args:
        queries: Queries of the future tokens, [heads, future, head_dim].
        keys: Keys of the context, best token first, [kv_heads, context, head_dim].
        values: Values of the context in the same order, [kv_heads, context, value_dim].
        positions: Columns of the context tokens in that order, int64, [kv_heads, context].
        future_keys: [kv_heads, future, head_dim].
        future_values: [kv_heads, future, value_dim].
        query_positions: Columns of the future tokens, int64, [future], rising.
        kept_tokens: Context tokens kept at each level, never falling, at most ``context``.
        scaling: Factor on the products of queries and keys.
        window: Sliding window in tokens; None for full attention.
        softcap: Cap on the logits; None for none.
        sinks: Logits of learned sinks, [heads]; None for none.
        slopes: What each query head's logits grow by from one column to the next, float32,
            [heads]; None for none.
        output_weight: The part of the output projection that each query head writes through,
            [heads, value_dim, hidden], any floating dtype.
        residual_norm: Euclidean norm of the residual stream behind the last layer at each future
            token, [future], float32. None unless the measure asks for it.
        gradient: Derivative of the loss on labels sampled from the model's own predictions, by
            this layer's attention output, [label_samples, heads, future, value_dim], float32.
            None unless the measure asks for it.
        divergence: Runs the model with the attention output of one KV head's group changed at the
            future tokens, ``divergence(kv_head, change)`` with [changes, group, future,
            value_dim], and returns the divergence of its predictions from the unchanged model's
            for each change, in nats per future token, [changes], float64. None unless the measure
            asks for it.

    Raises:
        ValueError: If ``kept_tokens`` is empty, falls, or exceeds the context, or there is no
            future token.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    positions: Tensor
    future_keys: Tensor
    future_values: Tensor
    query_positions: Tensor
    kept_tokens: tuple[int, ...]
    scaling: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    slopes: Tensor | None = None
    output_weight: Tensor
    residual_norm: Tensor | None = None
    gradient: Tensor | None = None
    divergence: Callable[[int, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check the levels."""
        edges = (0, *self.kept_tokens, self.context)
        if len(edges) < 3 or any(low > high for low, high in pairwise(edges)):
            raise ValueError(
                f"`kept_tokens` must hold numbers from 0 to {self.context} that never fall, but "
                f"got {self.kept_tokens}."
            )
        if self.future < 1:
            raise ValueError("`queries` must hold at least 1 future token, but got 0.")

    @property
    def context(self) -> int:
        """Context tokens per KV head."""
        return self.keys.shape[1]

    @property
    def future(self) -> int:
        """Future tokens."""
        return self.queries.shape[1]

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.queries.shape[0] // self.keys.shape[0]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.kept_tokens)

    def delta(self) -> Tensor:
        """Output at each level minus full output, [heads, future, levels, value_dim], float32."""
        return torch.cat([cut.delta for cut in self.cuts()], dim=1)

    def cuts(self, chunk: int = 128) -> Iterator[Cut]:
        """Compare every level with the full context, some future queries at a time.

        Each key is met once per chunk: the tokens between two levels are added to a running
        softmax, whose state after each level is what that level sees.

        Args:
            chunk: Future queries treated at a time.
        """
        for rows in chunks(self.future, chunk):
            states = list(self._states(rows))
            full = states[-1]
            levels = states[: self.levels]
            kept = torch.stack([state.share_of(full) for state in levels], dim=-1)
            delta = torch.stack([state.output() - full.output() for state in levels], dim=-2)
            yield Cut(rows, kept.flatten(0, 1), delta.flatten(0, 1))

    def _states(self, rows: slice) -> Iterator[_Softmax]:
        """Running softmax at each level, and last with the whole context."""
        state = self._empty(rows)
        state = self._extended(
            state, rows, self.future_keys, self.future_values, self.query_positions
        )
        for start, stop in pairwise((0, *self.kept_tokens, self.context)):
            if stop > start:
                part = slice(start, stop)
                state = self._extended(
                    state, rows, self.keys[:, part], self.values[:, part], self.positions[:, part]
                )
            yield state

    def _empty(self, rows: slice) -> _Softmax:
        """State before any key: nothing, or the learned sink, which has no value."""
        shape = (self.keys.shape[0], self.group, rows.stop - rows.start)
        device = self.queries.device
        output = torch.zeros(*shape, self.values.shape[-1], device=device)
        if self.sinks is None:
            lowest = torch.finfo(torch.float32).min
            return _Softmax(
                torch.full(shape, lowest, device=device), torch.zeros(shape, device=device), output
            )
        sinks = self.sinks.float().view(*shape[:2], 1).expand(shape)
        return _Softmax(sinks, torch.ones(shape, device=device), output)

    def _extended(
        self, state: _Softmax, rows: slice, keys: Tensor, values: Tensor, positions: Tensor
    ) -> _Softmax:
        kv_heads, tokens, head_dim = keys.shape
        queries = self.queries[:, rows].reshape(kv_heads, -1, head_dim)
        logits = attention_logits(queries, keys, scaling=self.scaling, softcap=self.softcap).view(
            kv_heads, self.group, -1, tokens
        )
        if self.slopes is not None:
            slopes = self.slopes.view(kv_heads, self.group)
            logits += linear_bias(slopes, positions, self.query_positions[rows])
        seen = visible(positions, self.query_positions[rows], self.window)
        if seen.dim() == 3:  # positions of the context differ between KV heads
            seen = seen.unsqueeze(1)
        return state.extended(logits.masked_fill_(~seen, -torch.inf), values.float())


class _Softmax(NamedTuple):
    """A softmax over the keys met so far, [kv_heads, group, rows].

    Attributes:
        highest: Largest logit so far.
        mass: Sum of exp(logit - highest).
        output: Sum of exp(logit - highest) times value, [kv_heads, group, rows, value_dim].
    """

    highest: Tensor
    mass: Tensor
    output_sum: Tensor

    def extended(self, logits: Tensor, values: Tensor) -> _Softmax:
        """Add keys: logits [kv_heads, group, rows, tokens] with values [kv_heads, tokens, dim]."""
        highest = torch.maximum(self.highest, logits.amax(dim=-1))
        shares = logits.sub_(highest.unsqueeze(-1)).exp_()
        shrink = (self.highest - highest).exp()
        mass = self.mass * shrink + shares.sum(dim=-1)
        added = (shares.flatten(1, 2) @ values).view_as(self.output_sum)
        return _Softmax(highest, mass, self.output_sum * shrink.unsqueeze(-1) + added)

    def share_of(self, full: _Softmax) -> Tensor:
        """Part of the full attention that these keys have, in [0, 1]."""
        mass = self.mass * (self.highest - full.highest).exp()
        return (mass / full.mass).clamp_max(1.0)

    def output(self) -> Tensor:
        """Attention output over these keys alone; 0 if there is none."""
        tiny = torch.finfo(torch.float32).tiny
        return self.output_sum / self.mass.clamp_min(tiny).unsqueeze(-1)
