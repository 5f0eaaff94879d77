"""The reference of attention sums against whole rows of attention in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from kvbudget.kernels import attention_sums
from kvbudget.kernels.attention_sums import reference

# relative, and absolute; half precision is widened before anything is computed
TOLERANCE = {torch.float32: (2e-5, 2e-6), torch.float16: (2e-5, 2e-6), torch.bfloat16: (2e-5, 2e-6)}


def assert_equals_dense(call, wanted):
    got = call.run(reference.attention_sums)
    assert got.dtype == torch.float32
    rtol, atol = TOLERANCE[call.tensors[0].dtype]
    torch.testing.assert_close(got.double(), wanted, rtol=rtol, atol=atol)


@st.composite
def calls(draw):
    tokens = draw(st.integers(1, 20))
    return {
        "batch": draw(st.integers(1, 3)),
        "kv_heads": draw(st.integers(1, 3)),
        "group": draw(st.integers(1, 3)),
        "tokens": tokens,
        "new": draw(st.integers(1, 9)),
        "head_dim": draw(st.sampled_from([1, 8, 24])),
        "held": draw(st.sampled_from([0.0, 0.2, 0.8, 2.0])),
        "padding": draw(st.integers(0, tokens)),
        "ahead": draw(st.integers(0, 9)),
        "window": draw(st.none() | st.integers(1, 30)),
        "softcap": draw(st.none() | st.floats(1.0, 30.0)),
        "sinks": draw(st.booleans()),
        "slopes": draw(st.booleans()),
        "dtype": draw(st.sampled_from(list(TOLERANCE))),
        "seed": draw(st.integers(0, 999)),
    }


@settings(deadline=None, max_examples=150)
@given(options=calls(), slice_of=st.sampled_from([1, 60, 1 << 20]))
def test_sums_equal_those_of_dense_attention_however_queries_are_sliced(
    options, slice_of, call, dense_sums
):
    made = call(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_MOST_LOGITS", slice_of)
        patch.setattr(reference, "_LEAST_QUERIES", 2)
        assert_equals_dense(made, dense_sums(made))


@pytest.mark.parametrize("padding", [0, 3, 50])
@pytest.mark.parametrize(
    "options",
    [{}, {"window": 9}, {"sinks": True}, {"slopes": True}, {"softcap": 3.0}],
    ids=str,
)
def test_sums_over_a_prompt_in_slices_equal_dense_attention(
    prompt, dense_sums, monkeypatch, options, padding
):
    monkeypatch.setattr(reference, "_MOST_LOGITS", 1)
    made = prompt(padding=padding, **options)
    assert_equals_dense(made, dense_sums(made))


def test_queries_in_any_order_give_the_same_sums(prompt, monkeypatch):
    made = prompt(window=11)
    queries, *rest, columns = made.tensors
    order = torch.randperm(len(columns), generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(reference, "_MOST_LOGITS", 1)
    mixed = reference.attention_sums(queries[:, :, order], *rest, columns[order], **made.settings)
    torch.testing.assert_close(mixed, made.run(reference.attention_sums))


def test_every_query_that_sees_anything_gives_one_in_all(call):
    made = call(tokens=30, new=5, ahead=5)
    sums = made.run(reference.attention_sums)
    torch.testing.assert_close(sums.sum(-1), torch.full((2, 2), 5.0))


def test_a_cache_without_tokens_gets_nothing_and_takes_nothing_from_others(call):
    made = call(tokens=30)
    queries, keys, valid, positions, at = made.tensors
    valid = valid.clone()
    valid[0, 1] = False
    sums = reference.attention_sums(queries, keys, valid, positions, at, **made.settings)
    whole = made.run(reference.attention_sums)
    assert (sums[0, 1] == 0).all()
    torch.testing.assert_close(sums[1], whole[1])
    torch.testing.assert_close(sums[0, 0], whole[0, 0])


def test_queries_and_keys_may_be_of_different_dtypes_and_any_strides(call):
    made = call(dtype=torch.bfloat16)
    queries, keys, *rest = made.tensors
    wanted = made.run(attention_sums)
    wide = queries.float().transpose(1, 2).contiguous().transpose(1, 2)
    turned = keys.transpose(1, 3).contiguous().transpose(1, 3)
    assert not turned.is_contiguous()
    got = attention_sums(wide, turned, *rest, **made.settings)
    torch.testing.assert_close(got, wanted)


def test_no_gradient_flows_back(call):
    made = call(sinks=True, slopes=True)
    made.tensors[0].requires_grad_()
    assert not made.run(attention_sums).requires_grad


def test_arguments_stay_as_they_are(call):
    made = call(sinks=True, slopes=True, softcap=2.0)
    before = [x.clone() for x in made.tensors]
    made.run(attention_sums)
    for old, new in zip(before, made.tensors, strict=True):
        assert torch.equal(old.nan_to_num(9.0), new.nan_to_num(9.0))


@pytest.mark.parametrize("empty", ["new", "tokens"])
def test_without_queries_or_without_tokens_there_is_nothing(call, empty):
    made = call(**{empty: 0})
    sums = made.run(attention_sums)
    assert sums.shape == made.tensors[2].shape
    assert sums.dtype == torch.float32
    assert (sums == 0).all()


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation's result had."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not func.is_view:
            self.numel = max(self.numel, result.numel())
        return result


def test_memory_is_linear_in_the_tokens(prompt, monkeypatch):
    made = prompt(tokens=400, batch=1)
    monkeypatch.setattr(reference, "_MOST_LOGITS", 4 * 20 * 400)
    with LargestTensor() as largest:
        made.run(reference.attention_sums)
    assert 4 * 20 * 200 < largest.numel <= 4 * 20 * 400


def test_tokens_that_no_query_sees_are_not_attended_to(prompt, monkeypatch):
    made = prompt(tokens=400, batch=1)
    queries, *rest, columns = made.tensors
    monkeypatch.setattr(reference, "_MOST_LOGITS", 1)
    # more queries than one slice takes, all among the first tokens
    early = (queries[:, :, :40], *rest, columns[:40])
    with LargestTensor() as largest:
        reference.attention_sums(*early, **made.settings)
    assert largest.numel <= made.tensors[1].numel()
    assert largest.numel < 4 * 16 * 400


WRONG = {
    "queries": (lambda x: x[:, :, 0], ValueError, r"`queries` must be \[batch, heads"),
    "heads": (lambda x: x[:, :3], ValueError, "a multiple of the 2 KV heads, but got 3 heads"),
    "whole": (lambda x: x.long(), TypeError, "`queries` must be floating point"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_queries_of_another_kind_are_refused(call, name):
    change, error, words = WRONG[name]
    made = call()
    with pytest.raises(error, match=words):
        attention_sums(change(made.tensors[0]), *made.tensors[1:], **made.settings)


@pytest.mark.parametrize(
    ("index", "change", "error", "words"),
    [
        (1, lambda x: x[..., :8], ValueError, r"`keys` must have shape \(2, 2, 40, 16\)"),
        (1, lambda x: x.long(), TypeError, "`keys` must be floating point"),
        (2, lambda x: x[:, :1], ValueError, r"`valid` must have shape \(2, 2, 40\)"),
        (2, lambda x: x.int(), TypeError, r"`valid` must be torch.bool, but got torch.int32"),
        (3, lambda x: x[..., 1:], ValueError, r"`positions` must have shape \(2, 2, 40\)"),
        (3, lambda x: x.int(), TypeError, r"`positions` must be torch.int64"),
        (3, lambda x: x.to("meta"), TypeError, "`positions` must lie on cpu"),
        (4, lambda x: x[1:], ValueError, r"`query_positions` must have shape \(7,\)"),
        (4, lambda x: x.float(), TypeError, "`query_positions` must be torch.int64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(call, index, change, error, words):
    made = call()
    tensors = list(made.tensors)
    tensors[index] = change(tensors[index])
    with pytest.raises(error, match=words):
        attention_sums(*tensors, **made.settings)


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"window": 0}, ValueError, "`window` must be at least 1, but got window=0"),
        ({"softcap": 0.0}, ValueError, r"`softcap` must be above 0, but got softcap=0.0"),
        ({"sinks": torch.zeros(3)}, ValueError, r"`sinks` must have shape \(4,\)"),
        ({"slopes": torch.zeros(4, 1)}, ValueError, r"`slopes` must have shape \(4,\)"),
        ({"slopes": torch.zeros(4).half()}, TypeError, "`slopes` must be torch.float32"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(call, setting, error, words):
    made = call()
    with pytest.raises(error, match=words):
        attention_sums(*made.tensors, **made.settings | setting)
