"""Cutting a cache at many levels in one pass, against one dense softmax per level."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics import CutView

MakeCutView = Callable[..., CutView]
Brute = Callable[[CutView], tuple[Tensor, Tensor]]


@st.composite
def cut_arguments(draw: st.DrawFn) -> dict[str, Any]:
    context = draw(st.integers(1, 16))
    some = draw(st.lists(st.integers(0, context), max_size=4))
    return {
        "seed": draw(st.integers(0, 999)),
        "kv_heads": draw(st.integers(1, 3)),
        "group": draw(st.integers(1, 3)),
        "context": context,
        "future": draw(st.integers(1, 6)),
        "kept_tokens": (*sorted(some), draw(st.sampled_from([context, max([0, *some])]))),
        "window": draw(st.none() | st.integers(1, 24)),
        "softcap": draw(st.none() | st.floats(1.0, 30.0)),
        "sinks": draw(st.booleans()),
        "slopes": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.bfloat16])),
    }


def whole(view: CutView, chunk: int) -> tuple[Tensor, Tensor]:
    cuts = list(view.cuts(chunk))
    assert [row for cut in cuts for row in range(cut.rows.start, cut.rows.stop)] == list(
        range(view.future)
    )
    return torch.cat([cut.kept_mass for cut in cuts], 1), torch.cat([cut.delta for cut in cuts], 1)


@settings(deadline=None, max_examples=80)
@given(arguments=cut_arguments(), chunk=st.integers(1, 8))
def test_every_level_equals_a_dense_softmax_over_what_it_keeps(
    arguments: dict[str, Any], chunk: int, make_cut_view: MakeCutView, brute_cuts: Brute
) -> None:
    view = make_cut_view(**arguments)
    kept, delta = whole(view, chunk)
    wanted_kept, wanted_delta = brute_cuts(view)
    assert (kept.shape, delta.shape) == (wanted_kept.shape, wanted_delta.shape)
    assert kept.dtype == delta.dtype == torch.float32
    torch.testing.assert_close(kept.double(), wanted_kept, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(delta.double(), wanted_delta, rtol=1e-5, atol=2e-5)


@settings(deadline=None, max_examples=40)
@given(arguments=cut_arguments())
def test_keeping_everything_changes_exactly_nothing(
    arguments: dict[str, Any], make_cut_view: MakeCutView
) -> None:
    view = make_cut_view(**arguments)
    full = [level for level, kept in enumerate(view.kept_tokens) if kept == view.context]
    kept, delta = whole(view, 3)
    assert (kept[..., full] == 1).all()
    assert (delta[..., full, :] == 0).all()


def test_logits_far_apart_neither_overflow_nor_vanish(
    make_cut_view: MakeCutView, brute_cuts: Brute
) -> None:
    view = make_cut_view(kept_tokens=(0, 1, 10, 19, 20))
    # the best context token outweighs all others by far more than float32 can hold
    steep = replace(view, queries=view.queries * 300)
    kept, delta = whole(steep, 4)
    wanted_kept, wanted_delta = brute_cuts(steep)
    torch.testing.assert_close(kept.double(), wanted_kept, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(delta.double(), wanted_delta, rtol=1e-3, atol=1e-3)
    assert (wanted_kept[..., 0] < 1e-40).any()


def test_equal_levels_give_equal_answers(make_cut_view: MakeCutView) -> None:
    kept, delta = whole(make_cut_view(kept_tokens=(2, 2, 20, 20)), 128)
    assert torch.equal(kept[..., 0], kept[..., 1])
    assert torch.equal(delta[..., 0, :], delta[..., 1, :])
    assert kept[..., 0].max() < 1


def test_kept_mass_never_falls_along_levels(make_cut_view: MakeCutView) -> None:
    kept, _ = whole(make_cut_view(kept_tokens=tuple(range(21))), 128)
    assert (kept.diff(dim=-1) >= -1e-6).all()
    assert kept[..., 0].mean() < 0.9


def test_asking_does_not_change_the_view(make_cut_view: MakeCutView) -> None:
    view = make_cut_view(softcap=4.0, sinks=True)
    before = [view.queries.clone(), view.keys.clone(), view.values.clone()]
    first = whole(view, 2)
    assert all(
        torch.equal(old, new)
        for old, new in zip(before, [view.queries, view.keys, view.values], strict=True)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, whole(view, 2), strict=True))


@pytest.mark.parametrize("kept_tokens", [(), (5, 3), (1, 21), (-1, 20)])
def test_levels_that_fall_or_leave_the_context_are_refused(
    kept_tokens: tuple[int, ...], make_cut_view: MakeCutView
) -> None:
    with pytest.raises(ValueError, match="`kept_tokens` must hold numbers from 0 to 20"):
        make_cut_view(kept_tokens=kept_tokens)


def test_a_view_without_future_tokens_is_refused(make_cut_view: MakeCutView) -> None:
    with pytest.raises(ValueError, match="at least 1 future token, but got 0"):
        make_cut_view(future=0)


def test_delta_is_that_of_all_cuts_together(make_cut_view: Callable[..., CutView]) -> None:
    view = make_cut_view(future=9)
    parts = [cut.delta for cut in view.cuts(chunk=4)]
    assert view.delta().shape == (4, 9, view.levels, 6)
    torch.testing.assert_close(view.delta(), torch.cat(parts, dim=1))
