"""What future queries lose when the caches of one layer are cut to each of many levels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

from kvbudget.kernels import Future, LevelStates, level_softmax
from kvbudget.kernels.attention import chunks

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
        future = Future(self.future_keys, self.future_values, self.query_positions)
        for rows in chunks(self.future, chunk):
            states = level_softmax(
                self.queries[:, rows],
                self.query_positions[rows],
                self.keys,
                self.values,
                self.positions,
                future,
                (*self.kept_tokens, self.context),
                scaling=self.scaling,
                window=self.window,
                softcap=self.softcap,
                sinks=self.sinks,
                slopes=self.slopes,
            )
            yield _compared(rows, states)


def _compared(rows: slice, states: LevelStates) -> Cut:
    """All levels but the last, which keeps everything, with the last."""
    highest, mass, output = states
    share = mass * (highest - highest[..., -1:]).exp() / mass[..., -1:]
    delta = output[..., :-1, :] - output[..., -1:, :]
    return Cut(rows, share[..., :-1].clamp_max(1.0).flatten(0, 1), delta.flatten(0, 1))
