"""What every heuristic's answer must fulfil, checked once, by whoever asks the heuristic."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .heuristic import CacheHeuristic, RunningHeuristic

if TYPE_CHECKING:
    from .cache_view import CacheView
    from .heuristic import TokenHeuristic
    from .layer_view import LayerView


def check_kind(heuristic: object, kind: type) -> None:
    """Refuse what is no instance of a kind of heuristic, such as a class or a name.

    Raises:
        TypeError: Says what was given.
    """
    if not isinstance(heuristic, kind):
        example = "Baklava" if issubclass(kind, CacheHeuristic) else "ObservationWindow"
        raise TypeError(
            f"`heuristic` must be an instance of a {kind.__name__}, but got {heuristic!r:.80}. "
            f"Pass an object, such as heuristics.{example}()."
        )


def checked_scores(heuristic: TokenHeuristic, view: LayerView) -> Tensor:
    """Ask a token heuristic for its scores and hold it to its contract.

    Returns:
        Scores, [batch, kv_heads, tokens], float32, finite; invalid places hold the lowest number.

    Raises:
        TypeError: If the answer is not a floating tensor.
        ValueError: If its shape is wrong, or a score of a valid token is not finite.
    """
    scores = _floating(heuristic.score(view), heuristic, "score", tuple(view.valid.shape))
    scores = scores.masked_fill(~view.valid, torch.finfo(torch.float32).min)
    return _finite(scores, heuristic, "score", ("sequence", "KV head", "place"))


def observed(heuristic: TokenHeuristic, view: LayerView) -> LayerView:
    """Show the queries of a view to a running heuristic; any other needs no showing.

    Returns:
        The view with the new state, [batch, kv_heads, tokens, channels], 0 at empty places.

    Raises:
        TypeError: If the state is not a floating tensor.
        ValueError: If its shape is wrong, or a number of a valid token is not finite.
    """
    if not isinstance(heuristic, RunningHeuristic):
        return view
    wanted = (*view.valid.shape, heuristic.channels)
    state = _floating(heuristic.observe(view), heuristic, "observe", wanted)
    state = state.masked_fill(~view.valid.unsqueeze(-1), 0.0)
    axes = ("sequence", "KV head", "place", "channel")
    return replace(view, state=_finite(state, heuristic, "observe", axes))


def checked_importance(heuristic: CacheHeuristic, view: CacheView) -> Tensor:
    """Ask a cache heuristic for the importance of a layer's caches and hold it to its contract.

    Returns:
        Importance, [kv_heads], float32, finite, never negative.

    Raises:
        TypeError: If the answer is not a floating tensor.
        ValueError: If its shape is wrong, or a number is negative or not finite.
    """
    wanted = (view.layer.keys.shape[1],)
    answer = _floating(heuristic.importance(view), heuristic, "importance", wanted)
    importance = _finite(answer, heuristic, "importance", ("KV head",))
    if (importance < 0).any():
        raise ValueError(
            f"`importance` of {type(heuristic).__name__} must never be negative, but got "
            f"{importance.min().item():g}."
        )
    return importance


def _floating(answer: object, heuristic: object, method: str, wanted: tuple[int, ...]) -> Tensor:
    subject = f"`{method}` of {type(heuristic).__name__}"
    if not isinstance(answer, Tensor):
        raise TypeError(f"{subject} must return a torch.Tensor, but got {type(answer).__name__}.")
    if tuple(answer.shape) != wanted:
        axes = "KV head" if len(wanted) == 1 else "sequence, KV head and token"
        unit = f"{axes} and channel" if len(wanted) == 4 else axes
        raise ValueError(
            f"{subject} must return {list(wanted)}, but got {list(answer.shape)}. "
            f"Return one number per {unit}."
        )
    if not answer.is_floating_point():
        raise TypeError(
            f"{subject} must return floating numbers, but got {answer.dtype}. "
            "Call .float() on them."
        )
    return answer.float()


def _finite(answer: Tensor, heuristic: object, method: str, axes: tuple[str, ...]) -> Tensor:
    finite = answer.isfinite()
    if not finite.all():
        first = (~finite).nonzero()[0].tolist()
        where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
        raise ValueError(
            f"`{method}` of {type(heuristic).__name__} must be finite, but got "
            f"{answer[tuple(first)].item()} at {where}."
        )
    return answer
