"""What every cache heuristic must hold, one function each; the name is the rule."""

from dataclasses import replace

import torch

from kvbudget.heuristics import CacheHeuristic, CacheView

from .answers import require
from .asking import blame, importance_of, raw_answer, require_equal, require_near
from .views import (
    KINDS,
    KV_HEADS,
    PADDING,
    PER_PLACE,
    PROMPT,
    cache_view,
    changed,
    other_heads,
    rows_of,
    tensors_of,
    without_padding,
)

PER_ROW = (*PER_PLACE, "queries")


def importance_is_one_float32_per_cache(heuristic: CacheHeuristic) -> None:
    """Finite and never negative, whatever the layer is like."""
    for kind, change in KINDS.items():
        name = PROMPT + kind
        found = raw_answer(heuristic, name, "importance", cache_view(**change))
        fault = (
            f"`importance` returns {list(found.shape)} of {found.dtype}, not [{KV_HEADS}] of "
            "torch.float32"
        )
        right = tuple(found.shape) == (KV_HEADS,) and found.dtype == torch.float32
        require(right, blame(heuristic, name, fault))
        sound = bool((found.isfinite() & (found >= 0)).all())
        fault = f"importance must be finite and never negative, but is {found.tolist()}"
        require(sound, blame(heuristic, name, fault))


def the_same_view_gets_the_same_importance_and_is_left_alone(heuristic: CacheHeuristic) -> None:
    """Importance follows from the view alone."""
    view = cache_view(softcap=4.0)
    parts = {"": view, "layer.": view.layer}
    before = {
        (prefix, name): each.clone()
        for prefix, part in parts.items()
        for name, each in tensors_of(part).items()
    }
    first = importance_of(heuristic, view, PROMPT)
    for (prefix, name), each in before.items():
        fault = f"it changes `{prefix}{name}` of the view"
        require_equal(heuristic, PROMPT, getattr(parts[prefix], name), each, fault)
    second = importance_of(heuristic, view, PROMPT)
    require_equal(heuristic, PROMPT, first, second, "it weighs differently each time")


def importance_depends_on_the_layer(heuristic: CacheHeuristic) -> None:
    """What weighs all layers alike says nothing."""
    one, other = (importance_of(heuristic, cache_view(seed), PROMPT) for seed in (7, 8))
    fault = f"a cache of two different layers weighs {float(one[0]):.6g} in both"
    require(bool((one != other).all()), blame(heuristic, PROMPT, fault))


def a_prompt_twice_weighs_like_once(heuristic: CacheHeuristic) -> None:
    """Sequences of a batch are averaged, not summed."""
    one = _row(cache_view(), 1)
    layer = changed(one.layer, lambda _, each: torch.cat([each, each]), PER_ROW)
    twice = replace(one, layer=layer, residual=torch.cat([one.residual, one.residual]))
    found = importance_of(heuristic, twice, PROMPT)
    wanted = importance_of(heuristic, one, PROMPT)
    require_near(heuristic, PROMPT, found, wanted, "a prompt weighs differently twice in a batch")


def padding_does_not_weigh(heuristic: CacheHeuristic) -> None:
    """A padded prompt weighs as it does without its padding."""
    row = len(PADDING) - 1
    pads, padded = PADDING[row], _row(cache_view(), row)
    assert padded.copied_from is not None, "the view has everything"
    assert padded.gradient is not None, "the view has everything"
    moved = padded.copied_from[pads:] - pads
    alone = replace(
        padded,
        layer=without_padding(padded.layer, pads),
        residual=padded.residual[:, pads:],
        gradient=padded.gradient[:, :, pads:],
        copied_from=moved.where(moved >= 0, -1),
    )
    found, wanted = (importance_of(heuristic, each, PROMPT) for each in (padded, alone))
    require_near(heuristic, PROMPT, found, wanted, "padding changes the importance")


def caches_can_change_places(heuristic: CacheHeuristic) -> None:
    """Importance follows its cache; query head h reads KV head h // group."""
    view = cache_view()
    layer, heads = other_heads(view.layer)
    assert view.gradient is not None, "the view has everything"
    swapped = replace(
        view,
        layer=layer,
        output_weight=view.output_weight[heads],
        gradient=view.gradient[:, heads],
    )
    found, wanted = (importance_of(heuristic, each, PROMPT) for each in (swapped, view))
    fault = "importance does not follow its cache when caches change places"
    require_near(heuristic, PROMPT, found, wanted.flip(0), fault)


def half_precision_weighs_in_float32(heuristic: CacheHeuristic) -> None:
    """Importance of half-precision tensors is that of the same numbers in float32."""
    for dtype in (torch.float16, torch.bfloat16):
        name = f"{PROMPT} in {dtype}"
        half = _to(cache_view(), dtype)
        raw = raw_answer(heuristic, name, "importance", half)
        fault = f"`importance` returns {raw.dtype} instead of torch.float32"
        require(raw.dtype == torch.float32, blame(heuristic, name, fault))
        found, wanted = (
            importance_of(heuristic, each, name) for each in (half, _to(half, torch.float32))
        )
        fault = "importance differs from that of the same numbers in float32"
        require_near(heuristic, name, found, wanted, fault)


def _row(view: CacheView, row: int) -> CacheView:
    """One sequence of the batch."""
    rows = slice(row, row + 1)
    return replace(view, layer=rows_of(view.layer, rows), residual=view.residual[rows])


def _to(view: CacheView, dtype: torch.dtype) -> CacheView:
    layer = changed(view.layer, lambda _, each: each.to(dtype), ("keys", "values", "queries"))
    residual, weight = view.residual.to(dtype), view.output_weight.to(dtype)
    return replace(view, layer=layer, residual=residual, output_weight=weight)


CACHE_CHECKS = (
    importance_is_one_float32_per_cache,
    importance_depends_on_the_layer,
    the_same_view_gets_the_same_importance_and_is_left_alone,
    a_prompt_twice_weighs_like_once,
    padding_does_not_weigh,
    caches_can_change_places,
    half_precision_weighs_in_float32,
)
