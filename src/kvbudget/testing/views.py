"""Small random views of a layer, and the changes that must make no difference to a heuristic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, LayerView, Rotation

BATCH, KV_HEADS, GROUP, TOKENS, HEAD_DIM, HIDDEN = 3, 2, 3, 96, 8, 24
HEADS = KV_HEADS * GROUP
PADDING = (0, 5, 11)
NEWEST = 32
FULL: dict[str, Any] = {"sinks": torch.linspace(-1, 2, HEADS), "softcap": 9.0, "prompt_columns": 60}
KINDS: dict[str, dict[str, Any]] = {
    "": {},
    " with a sliding window": {"window": 9},
    " with a soft cap": {"softcap": 3.0},
    " with learned sinks": {"sinks": torch.linspace(-1, 2, HEADS)},
    " with linear biases": {"slopes": torch.linspace(0.02, 0.3, HEADS)},
    " whose last tokens were decoded": {"prompt_columns": 60},
    " with rotated keys": {"rotation": Rotation(torch.tensor([0.5, 0.02, 0.001]))},
    " whose output projection is unknown": {"output_weight": None},
}
PER_PLACE = ("keys", "values", "valid", "positions")
PROMPT, DECODING, NO_QUERIES = "a padded prompt", "caches while decoding", "caches without queries"


@dataclass(frozen=True, slots=True, eq=False)
class ViewExample:
    """A view with a name.

    Args:
        name: What it shows.
        view: The view.
    """

    name: str
    view: LayerView

    def of(self, view: LayerView) -> "ViewExample":
        """The same, changed."""
        return replace(self, view=view)


def prompts() -> tuple[ViewExample, ...]:
    """Prompts with left padding and all their queries, of every kind."""
    return _examples(PROMPT, prompt_view())


def decodings() -> tuple[ViewExample, ...]:
    """Caches that hold different columns, and their newest queries, of every kind."""
    return _examples(DECODING, decoding_view())


def without_queries() -> tuple[ViewExample, ...]:
    """Caches whose queries were all taken back, of every kind."""
    return _examples(NO_QUERIES, decoding_view(new=0))


def full_examples() -> tuple[ViewExample, ...]:
    """A prompt and a cache while decoding, both with all that a layer can have."""
    views = {PROMPT: prompt_view(), DECODING: decoding_view()}
    return tuple(ViewExample(name, replace(view, **FULL)) for name, view in views.items())


def prompt_view(
    new: int = TOKENS, tokens: int = TOKENS, padding: Sequence[int] = PADDING, seed: int = 5
) -> LayerView:
    """A prompt in three left-padded sequences, and its last queries."""
    draw = torch.Generator().manual_seed(seed)
    shape = (len(padding), KV_HEADS, tokens)
    columns = torch.arange(tokens).expand(shape).contiguous()
    return LayerView(
        layer=1,
        keys=torch.randn(*shape, HEAD_DIM, generator=draw),
        values=torch.randn(*shape, HEAD_DIM, generator=draw),
        valid=columns >= torch.tensor(padding).view(-1, 1, 1),
        positions=columns,
        queries=3 * torch.randn(len(padding), HEADS, new, HEAD_DIM, generator=draw),
        query_positions=torch.arange(tokens - new, tokens),
        scaling=0.5,
        output_weight=torch.randn(HEADS, HEAD_DIM, HIDDEN, generator=draw),
    )


def decoding_view(new: int = NEWEST) -> LayerView:
    """A few newest queries over caches that hold different columns."""
    view = prompt_view(new)
    held = torch.rand(view.valid.shape, generator=torch.Generator().manual_seed(6)) < 0.6
    held |= view.positions >= TOKENS - new
    return replace(view, valid=view.valid & held)


def cache_view(seed: int = 7, **changes: Any) -> CacheView:
    """A prompt, with all that a cache heuristic may ask for."""
    draw = torch.Generator().manual_seed(seed)
    copied_from = torch.arange(TOKENS) - 40
    return CacheView(
        layer=replace(prompt_view(seed=seed), **changes),
        residual=torch.randn(BATCH, TOKENS, HIDDEN, generator=draw),
        output_weight=torch.randn(HEADS, HEAD_DIM, HIDDEN, generator=draw),
        gradient=torch.randn(2, HEADS, TOKENS, HEAD_DIM, generator=draw),
        copied_from=copied_from.where(copied_from >= PADDING[-1], -1),
    )


def changed(
    view: LayerView, change: Callable[[str, Tensor], Tensor], names: Sequence[str]
) -> LayerView:
    """A view with some of its tensors changed; what it does not have stays away."""
    tensors = {name: getattr(view, name) for name in names}
    new: dict[str, Any] = {
        name: change(name, each) for name, each in tensors.items() if each is not None
    }
    return replace(view, **new)


def rows_of(view: LayerView, rows: slice) -> LayerView:
    """Some sequences of the batch."""
    return changed(view, lambda _, each: each[rows], (*PER_PLACE, "queries", "state"))


def without_padding(view: LayerView, pads: int) -> LayerView:
    """One left-padded sequence as it would be without its padding."""
    names = ("keys", "values", "valid", "queries")
    shorter = {name: getattr(view, name)[:, :, pads:] for name in names}
    prompt = None if view.prompt_columns is None else view.prompt_columns - pads
    return replace(
        view,
        **shorter,
        positions=view.positions[:, :, pads:] - pads,
        query_positions=view.query_positions[pads:] - pads,
        prompt_columns=prompt,
    )


def other_heads(view: LayerView) -> tuple[LayerView, Tensor]:
    """The view with its two KV heads, and their query heads, in the other order.

    Returns:
        The view, and where each query head was.
    """
    heads = torch.arange(HEADS).view(KV_HEADS, GROUP).flip(0).flatten()
    swapped = changed(view, lambda _, each: each.flip(1), PER_PLACE)
    swapped = changed(swapped, lambda _, each: each[heads], ("sinks", "slopes", "output_weight"))
    return replace(swapped, queries=view.queries[:, heads]), heads


def packed(valid: Tensor, order: Tensor, field: str, tensor: Tensor) -> Tensor:
    """One tensor of a view with its places in another order, and nonsense at the empty ones.

    Args:
        valid: Places that hold a token, [batch, kv_heads, tokens].
        order: The new order of the places, as ``valid``.
        field: Which tensor it is.
        tensor: The tensor, with the axes of ``valid`` first.
    """
    if tensor.dim() == 3:
        junk = -3 if field == "positions" else 0
        return tensor.masked_fill(~valid, junk).gather(-1, order)
    spread = order.unsqueeze(-1).expand(-1, -1, -1, tensor.shape[-1])
    junk_number = 0.0 if field == "state" else torch.nan
    return tensor.masked_fill(~valid.unsqueeze(-1), junk_number).gather(2, spread)


def first_queries(view: LayerView, count: int) -> LayerView:
    """The oldest queries, when the tokens behind them had not been read yet."""
    end = int(view.query_positions[count - 1]) + 1 if count else int(view.query_positions[0])
    return replace(
        view,
        queries=view.queries[:, :, :count],
        query_positions=view.query_positions[:count],
        valid=view.valid & (view.positions < end),
    )


def tensors_of(view: object) -> dict[str, Tensor]:
    """All tensors of a view by name."""
    found = {field.name: getattr(view, field.name) for field in fields(view)}  # type: ignore[arg-type]
    return {name: each for name, each in found.items() if isinstance(each, Tensor)}


def _examples(name: str, view: LayerView) -> tuple[ViewExample, ...]:
    return tuple(
        ViewExample(name + kind, replace(view, **change)) for kind, change in KINDS.items()
    )
