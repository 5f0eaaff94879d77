"""Asking a heuristic, and saying in one sentence what it broke."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from kvbudget.heuristics import (
    CacheHeuristic,
    CacheView,
    LayerView,
    RunningHeuristic,
    TokenHeuristic,
    checked_importance,
    checked_scores,
    observed,
)

from .answers import raised, require
from .views import ViewExample, first_queries

View = TypeVar("View")
Answer = TypeVar("Answer")
TOLERANCE = 1e-5


def blame(heuristic: object, what: str, fault: str) -> str:
    """Name the heuristic, what is wrong, and on what."""
    return f"{type(heuristic).__name__} failed: {fault}. It was shown {what}."


def asked(heuristic: object, what: str, question: Callable[[View], Answer], view: View) -> Answer:
    """Put a question to a heuristic, which must not fail.

    Raises:
        AssertionError: If it does.
    """
    try:
        return question(view)
    except Exception as error:
        raise AssertionError(blame(heuristic, what, raised(error))) from error


def raw_answer(heuristic: object, what: str, method: str, view: object) -> Tensor:
    """Call a method that must return a tensor, before the runtime makes anything of it.

    Raises:
        AssertionError: If it fails, or returns something else.
    """
    answer: object = asked(heuristic, what, getattr(heuristic, method), view)
    if not isinstance(answer, Tensor):
        fault = f"`{method}` returns a {type(answer).__name__}, not a torch.Tensor"
        raise AssertionError(blame(heuristic, what, fault))
    return answer


def scores_of(heuristic: TokenHeuristic, example: ViewExample, *, at_once: bool = False) -> Tensor:
    """Scores as the runtime takes them, [batch, kv_heads, tokens].

    Args:
        heuristic: Whom to ask.
        example: What to show.
        at_once: Show all queries to a running heuristic in one block, not in two.
    """
    return asked(heuristic, example.name, partial(_scores, heuristic, at_once), example.view)


def importance_of(heuristic: CacheHeuristic, view: CacheView, what: str) -> Tensor:
    """Importance as the runtime takes it, [kv_heads]."""
    return asked(heuristic, what, partial(checked_importance, heuristic), view)


def _scores(heuristic: TokenHeuristic, at_once: bool, view: LayerView) -> Tensor:
    met = shown_in_blocks(heuristic, view, []) if at_once else _in_two_blocks(heuristic, view)
    return checked_scores(heuristic, met)


def shown(heuristic: TokenHeuristic, example: ViewExample) -> LayerView:
    """The view after a running heuristic has met its queries, in two blocks."""
    return asked(heuristic, example.name, partial(_in_two_blocks, heuristic), example.view)


def _in_two_blocks(heuristic: TokenHeuristic, view: LayerView) -> LayerView:
    return shown_in_blocks(heuristic, view, [view.new // 2])


def shown_in_blocks(heuristic: TokenHeuristic, view: LayerView, cuts: list[int]) -> LayerView:
    """The view after a running heuristic has met its queries, in blocks with borders at ``cuts``.

    Tokens behind a block have not been read when it is shown.
    """
    if not isinstance(heuristic, RunningHeuristic):
        return view
    state, start = view.state, 0
    for end in [*(cut for cut in cuts if 0 < cut < view.new), view.new]:
        block = first_queries(view, end) if end < view.new else view
        block = replace(
            block,
            queries=block.queries[:, :, start:],
            query_positions=block.query_positions[start:],
            state=state,
        )
        state, start = observed(heuristic, block).state, end
    return replace(view, state=state)


def require_near(heuristic: object, what: str, found: Tensor, wanted: Tensor, fault: str) -> None:
    """Compare two answers that must agree.

    Raises:
        AssertionError: If they do not; says by how much.
    """
    off = (found.double() - wanted.double()).abs()
    too_far = off > TOLERANCE * (1 + wanted.double().abs())
    if bool(too_far.any()):
        worst = float(off[too_far].max())
        raise AssertionError(blame(heuristic, what, f"{fault}, by up to {worst:.3g}"))


def require_equal(heuristic: object, what: str, found: Tensor, wanted: Tensor, fault: str) -> None:
    """Compare two answers that must be the same.

    Raises:
        AssertionError: If they are not.
    """
    require(torch.equal(found, wanted), blame(heuristic, what, fault))
