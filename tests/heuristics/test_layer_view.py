"""The attention that a view computes, against dense attention."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kvbudget.heuristics import LayerView, Rotation

MakeView = Callable[..., LayerView]
Oracle = Callable[[LayerView], Tensor]


class LargestTensor(TorchDispatchMode):
    """Remember the most elements that any operation's result had."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self.numel = max(self.numel, result.numel())
        return result


@st.composite
def view_arguments(draw: st.DrawFn) -> dict[str, Any]:
    tokens = draw(st.integers(1, 14))
    return {
        "seed": draw(st.integers(0, 999)),
        "batch": draw(st.integers(1, 2)),
        "kv_heads": draw(st.integers(1, 3)),
        "group": draw(st.integers(1, 3)),
        "tokens": tokens,
        "new": draw(st.integers(0, tokens)),
        "padding": (draw(st.integers(0, tokens)), draw(st.integers(0, tokens))),
        "ragged": draw(st.booleans()),
        "window": draw(st.none() | st.integers(1, 20)),
        "softcap": draw(st.none() | st.floats(1.0, 30.0)),
        "sinks": draw(st.booleans()),
        "slopes": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
    }


def by_kv_head(dense: Tensor, view: LayerView) -> Tensor:
    """Mean over consecutive query heads, [batch, kv_heads, new, tokens]."""
    batch, _, new, tokens = dense.shape
    return dense.view(batch, view.keys.shape[1], view.group, new, tokens).mean(dim=2)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=2e-6)


@settings(deadline=None, max_examples=60)
@given(arguments=view_arguments(), window=st.integers(1, 16))
def test_attention_equals_dense_attention_averaged_over_the_group(
    arguments: dict[str, Any], window: int, make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(**arguments)
    found = view.attention(window)
    assert found.shape == (*view.valid.shape[:2], min(window, view.new), view.valid.shape[2])
    dense = by_kv_head(dense_attention(view), view)
    assert_near(found, dense[:, :, max(0, view.new - window) :])


@settings(deadline=None, max_examples=60)
@given(arguments=view_arguments(), window=st.integers(1, 16))
def test_recent_attention_is_the_mean_over_the_queries_that_see_anything(
    arguments: dict[str, Any], window: int, make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(**arguments)
    rows = by_kv_head(dense_attention(view), view)[:, :, max(0, view.new - window) :]
    seeing = (rows.sum(dim=-1) > 0).sum(dim=-1, keepdim=True).clamp_min(1)
    assert_near(view.recent_attention(window), rows.sum(dim=2) / seeing)


@settings(deadline=None, max_examples=60)
@given(arguments=view_arguments())
def test_total_attention_is_the_sum_over_all_queries(
    arguments: dict[str, Any], make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(**arguments)
    assert_near(view.total_attention(), by_kv_head(dense_attention(view), view).sum(dim=2))


def test_attention_of_one_decoding_step_over_uneven_heads(
    make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(new=1, ragged=True, tokens=40, batch=3, padding=(0, 0, 0))
    assert len({tuple(row) for row in view.valid.flatten(0, 1).tolist()}) == 6
    assert_near(view.attention(8), by_kv_head(dense_attention(view), view))


def test_queries_at_padding_see_nothing(make_view: MakeView) -> None:
    view = make_view(padding=(0, 5))
    rows = view.attention(12)
    assert torch.equal(rows[1, :, :5], torch.zeros(2, 5, 12))
    torch.testing.assert_close(rows[1, :, 5:].sum(-1), torch.ones(2, 7))
    assert torch.equal(view.total_attention()[1, :, :5], torch.zeros(2, 5))


def test_a_sequence_of_nothing_but_padding_gets_zeros(make_view: MakeView) -> None:
    view = make_view(padding=(0, 12))
    for mass in (view.recent_attention(4), view.total_attention(), view.attention(4).sum(2)):
        assert torch.equal(mass[1], torch.zeros(2, 12))
        assert mass[0].sum() > 0


def test_without_queries_all_attention_is_zero(make_view: MakeView) -> None:
    view = make_view(new=0)
    assert torch.equal(view.recent_attention(8), torch.zeros(2, 2, 12))
    assert torch.equal(view.total_attention(), torch.zeros(2, 2, 12))
    assert view.attention(8).shape == (2, 2, 0, 12)
    assert list(view.attention_chunks()) == []


@settings(deadline=None, max_examples=30)
@given(arguments=view_arguments(), chunk=st.integers(1, 16))
def test_chunks_cover_all_queries_in_order_with_every_query_head_by_itself(
    arguments: dict[str, Any], chunk: int, make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(**arguments)
    dense = dense_attention(view).unflatten(1, (view.keys.shape[1], view.group))
    end = 0
    for rows, probabilities in view.attention_chunks(chunk):
        assert rows.start == end
        assert probabilities.shape[3] == rows.stop - rows.start <= chunk
        assert_near(probabilities, dense[:, :, :, rows])
        end = rows.stop
    assert end == view.new


@settings(deadline=None, max_examples=30)
@given(arguments=view_arguments())
def test_seen_are_the_tokens_with_attention(
    arguments: dict[str, Any], make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(**arguments)
    seen = view.seen(slice(0, view.new))
    assert seen.shape == (*view.valid.shape[:2], view.new, view.valid.shape[2])
    assert torch.equal(seen, by_kv_head(dense_attention(view), view) > 0)


def test_order_is_counted_in_held_tokens_of_each_head(make_view: MakeView) -> None:
    view = make_view(ragged=True, tokens=30, seed=4)
    rank, age, order = view.rank(), view.age(), view.packed_order()
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head].nonzero().flatten().tolist()
            empty = (~view.valid[row, head]).nonzero().flatten().tolist()
            assert rank[row, head, held].tolist() == list(range(1, len(held) + 1))
            assert age[row, head, held].tolist() == list(range(len(held) - 1, -1, -1))
            assert order[row, head].tolist() == held + empty


def test_what_is_packed_can_be_put_back(make_view: MakeView) -> None:
    view = make_view(ragged=True, tokens=30)
    order = view.packed_order()
    packed = view.positions.gather(-1, order)
    assert (packed.diff(dim=-1)[view.valid.gather(-1, order)[..., 1:]] > 0).all()
    assert torch.equal(torch.empty_like(packed).scatter_(-1, order, packed), view.positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_held_keys_and_values_are_float32_and_0_at_empty_places(
    make_view: MakeView, dtype: torch.dtype
) -> None:
    view = make_view(ragged=True, dtype=dtype)
    for held, stored in ((view.held_keys(), view.keys), (view.held_values(), view.values)):
        assert held.dtype == torch.float32
        assert torch.equal(held[view.valid], stored.float()[view.valid])
        assert torch.equal(held[~view.valid], torch.zeros_like(held[~view.valid]))


def test_keys_and_queries_are_turned_back_by_their_own_columns(make_view: MakeView) -> None:
    rotation = Rotation(torch.tensor([0.7, 0.1]), scaling=1.5)
    plain = make_view(ragged=True, new=5)
    turned = replace(
        plain,
        keys=rotation.apply(plain.keys, plain.positions),
        queries=rotation.apply(plain.queries, plain.query_positions),
        rotation=rotation,
    )
    torch.testing.assert_close(turned.unrotated_keys(), plain.held_keys())
    torch.testing.assert_close(turned.unrotated_queries(), plain.queries)
    assert not torch.allclose(turned.held_keys(), plain.held_keys())


def test_without_a_rotation_there_is_nothing_to_undo(make_view: MakeView) -> None:
    view = make_view(dtype=torch.bfloat16)
    assert torch.equal(view.unrotated_keys(), view.held_keys())
    assert torch.equal(view.unrotated_queries(), view.queries.float())


def test_group_mean_is_over_the_query_heads_of_each_kv_head(make_view: MakeView) -> None:
    view = make_view(kv_heads=2, group=3)
    per_head = torch.arange(12.0).view(2, 6, 1)
    assert view.group_mean(per_head).squeeze(-1).tolist() == [[1.0, 4.0], [7.0, 10.0]]


def test_a_state_is_known_or_zero(make_view: MakeView) -> None:
    fresh = make_view().known_state(3)
    assert fresh.dtype == torch.float32
    assert torch.equal(fresh, torch.zeros(2, 2, 12, 3))
    state = torch.rand(2, 2, 12, 3)
    assert make_view(state=state).known_state(3) is state


def test_total_attention_never_holds_tokens_by_tokens(make_view: MakeView) -> None:
    view = make_view(tokens=1500, batch=1, group=2, padding=(0,))
    with LargestTensor() as seen:  # type: ignore[no-untyped-call]
        view.total_attention()
    assert 1500 * 1500 / 8 < seen.numel < 1500 * 1500 / 2


def test_counting_queries_that_see_anything_takes_no_array_of_queries_by_tokens(
    make_view: MakeView,
) -> None:
    view = make_view(tokens=300, padding=(0, 20), window=9)
    with LargestTensor() as seen:  # type: ignore[no-untyped-call]
        counted = view._seeing(slice(0, 300))
    assert seen.numel <= 2 * 2 * 301
    assert counted[..., 0].tolist() == [[300, 300], [280, 280]]


def test_half_precision_keys_are_never_copied_whole(make_view: MakeView) -> None:
    view = make_view(tokens=10_000, batch=1, new=1, group=1, padding=(0,), dtype=torch.bfloat16)
    with LargestTensor() as seen:  # type: ignore[no-untyped-call]
        view.attention(1)
    assert 0 < seen.numel <= view.keys.numel() // 2


def test_a_view_is_frozen_and_asking_does_not_change_it(make_view: MakeView) -> None:
    view = make_view(state=torch.rand(2, 2, 12, 1), softcap=5.0, sinks=True)
    tensors = {
        name: getattr(view, name).clone()
        for name in ("keys", "values", "queries", "valid", "positions", "state", "sinks")
    }
    view.attention(4), view.recent_attention(4), view.total_attention()
    view.held_keys(), view.held_values(), view.unrotated_keys(), view.unrotated_queries()
    for name, before in tensors.items():
        assert torch.equal(getattr(view, name).nan_to_num(9.0), before.nan_to_num(9.0))
    with pytest.raises(FrozenInstanceError):
        view.layer = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", ["values", "valid", "positions"])
def test_shapes_that_do_not_fit_the_keys_are_refused(name: str, make_view: MakeView) -> None:
    view = make_view()
    with pytest.raises(ValueError, match=rf"`{name}` must start with .* = \[2, 2, 12\]"):
        replace(view, **{name: getattr(view, name)[:, :1]})


def test_query_heads_that_do_not_divide_are_refused(make_view: MakeView) -> None:
    view = make_view()
    with pytest.raises(ValueError, match="multiple of 2 heads, but got 3"):
        replace(view, queries=view.queries[:, :3])


def test_query_positions_of_another_length_are_refused(make_view: MakeView) -> None:
    view = make_view()
    with pytest.raises(ValueError, match="must hold 12 columns, one per query, but got 11"):
        replace(view, query_positions=view.query_positions[1:])


def test_one_kv_head_by_itself_attends_as_among_others(
    make_view: MakeView, dense_attention: Oracle
) -> None:
    view = make_view(kv_heads=3, group=2, sinks=True, slopes=True, state=torch.rand(2, 3, 12, 2))
    for kv_head in range(3):
        one = view.only(kv_head)
        assert one.group == view.group
        wanted = by_kv_head(dense_attention(view), view)[:, kv_head : kv_head + 1]
        assert_near(one.attention(12), wanted)
        assert torch.equal(one.known_state(2), view.known_state(2)[:, kv_head : kv_head + 1])


@pytest.mark.parametrize("ask", [LayerView.attention, LayerView.recent_attention])
@pytest.mark.parametrize(
    ("window", "error", "sentence"),
    [
        ("3", TypeError, "`window` must be an integer, but got '3'."),
        (2.5, TypeError, "`window` must be an integer, but got 2.5."),
        (True, TypeError, "`window` must be an integer, but got True."),
        (0, ValueError, "`window` must be at least 1, but got window=0."),
    ],
)
def test_a_window_is_a_count_of_queries(
    ask: Any, window: Any, error: type[Exception], sentence: str, make_view: MakeView
) -> None:
    with pytest.raises(error) as caught:
        ask(make_view(), window)
    assert str(caught.value) == sentence


def test_the_newest_queries_may_be_none(make_view: MakeView) -> None:
    assert make_view().newest(0).new == 0
