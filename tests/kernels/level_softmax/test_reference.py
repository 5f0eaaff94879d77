"""The reference of the softmax at levels against one dense softmax per level, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.kernels import Future, LevelStates, level_softmax
from kvbudget.kernels.level_softmax import reference

# of normaliser and output; half precision is widened before anything is computed
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}


def assert_equals_dense(call, wanted):
    states = call.run(reference.level_softmax)
    assert {x.dtype for x in states} == {torch.float32}
    tolerance = TOLERANCE[call.tensors[0].dtype]
    normaliser = states.mass.double().log() + states.highest
    near = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(normaliser, wanted[0], **near)
    torch.testing.assert_close(states.output.double(), wanted[1], **near)


@st.composite
def calls(draw):
    context, future = draw(st.integers(0, 20)), draw(st.integers(1, 6))
    return {
        "kv_heads": draw(st.integers(1, 3)),
        "group": draw(st.integers(1, 3)),
        "context": context,
        "future": future,
        "rows": draw(st.integers(1, future)),
        "kept_tokens": tuple(sorted(draw(st.lists(st.integers(0, context), max_size=5)))),
        "head_dim": draw(st.sampled_from([1, 8, 24])),
        "value_dim": draw(st.sampled_from([1, 8, 40])),
        "window": draw(st.none() | st.integers(1, 30)),
        "softcap": draw(st.none() | st.floats(1.0, 30.0)),
        "sinks": draw(st.booleans()),
        "slopes": draw(st.booleans()),
        "dtype": draw(st.sampled_from(list(TOLERANCE))),
        "seed": draw(st.integers(0, 999)),
    }


@settings(deadline=None, max_examples=100)
@given(options=calls())
def test_every_level_equals_a_dense_softmax_by_itself(options, call, dense_levels):
    made = call(**options | {"kept_tokens": options["kept_tokens"] or (0,)})
    assert_equals_dense(made, dense_levels(made))


def test_levels_of_one_length_are_equal_to_the_last_bit(call):
    states = call(kept_tokens=(4, 4, 9, 9, 9)).run(level_softmax)
    for x in (states.highest, states.mass):
        assert torch.equal(x[..., 0], x[..., 1])
        assert torch.equal(x[..., 2], x[..., 4])
    assert torch.equal(states.output[..., 0, :], states.output[..., 1, :])
    assert not torch.equal(states.output[..., 1, :], states.output[..., 2, :])


@pytest.mark.parametrize("sinks", [False, True])
def test_a_query_that_sees_nothing_gets_zeros(call, sinks):
    made = call(future=0, rows=0, kept_tokens=(0, 5), window=1, sinks=sinks)
    queries, _, *context = made.tensors
    queries = torch.ones(4, 3, 16)
    at = torch.arange(1000, 1003)
    states = level_softmax(queries, at, *context, made.future, (0, 5), **made.settings)
    assert (states.output == 0).all()
    if not sinks:
        assert (states.mass == 0).all()
        assert (states.highest == torch.finfo(torch.float32).min).all()


def test_no_gradient_flows_back(call):
    made = call(sinks=True, slopes=True)
    made.tensors[0].requires_grad_()
    assert not any(x.requires_grad for x in made.run(level_softmax))


def test_arguments_stay_as_they_are(call):
    made = call(sinks=True, slopes=True, softcap=2.0)
    before = [x.clone() for x in (*made.tensors, *made.future)]
    made.run(level_softmax)
    assert all(map(torch.equal, before, (*made.tensors, *made.future)))


def test_no_levels_give_no_states(call):
    states = call(kept_tokens=()).run(level_softmax)
    assert isinstance(states, LevelStates)
    assert states.mass.shape == (2, 2, 5, 0)
    assert states.output.shape == (2, 2, 5, 0, 16)


@pytest.mark.parametrize("kept_tokens", [(5, 3), (1, 31), (-1, 20)])
def test_levels_that_fall_or_leave_the_context_are_refused(call, kept_tokens):
    with pytest.raises(ValueError, match="`kept_tokens` must hold numbers from 0 to 30"):
        call(kept_tokens=kept_tokens).run(level_softmax)


@pytest.mark.parametrize(
    ("index", "change", "words"),
    [
        (0, lambda x: x[0], "must have 3 axes"),
        (0, lambda x: x[:3], "a multiple of the 2 KV heads, but got 3 heads"),
        (1, lambda x: x[1:], r"`query_positions` must have shape \(5,\), but got \(4,\)"),
        (2, lambda x: x[:, 1:], r"`keys` must have shape \(2, 30, 16\)"),
        (4, lambda x: x[:1], r"`positions` must have shape \(2, 30\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(call, index, change, words):
    made = call()
    tensors = list(made.tensors)
    tensors[index] = change(tensors[index])
    with pytest.raises(ValueError, match=words):
        level_softmax(*tensors, made.future, made.kept_tokens, **made.settings)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (0, "`queries` must be floating point, but got torch.int64"),
        (1, "`query_positions` must be torch.int64, but got torch.int32"),
        (2, "`keys` must be floating point, but got torch.int64"),
        (3, "`values` must be floating point, but got torch.int64"),
        (4, "`positions` must be torch.int64, but got torch.int32"),
    ],
)
def test_tensors_of_another_dtype_are_refused(call, index, words):
    made = call()
    tensors, future = list(made.tensors), made.future
    tensors[index] = tensors[index].int() if index in {1, 4} else tensors[index].long()
    # the future has the dtype of the context, whatever it is
    future = future._replace(keys=future.keys.to(tensors[2].dtype))
    future = future._replace(values=future.values.to(tensors[3].dtype))
    with pytest.raises(TypeError, match=words):
        level_softmax(*tensors, future, made.kept_tokens, **made.settings)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_future_of_another_dtype_is_refused(call, index):
    made = call()
    future = list(made.future)
    future[index] = future[index].half()
    name = Future._fields[index]
    with pytest.raises(TypeError, match=rf"`future\.{name}` must be torch"):
        level_softmax(*made.tensors, Future(*future), made.kept_tokens, **made.settings)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_future_that_does_not_fit_is_refused(call, index):
    made = call()
    future = list(made.future)
    future[index] = future[index][..., 1:]
    name = "keys" if index == 2 else Future._fields[index]
    with pytest.raises(ValueError, match=rf"`future\.{name}` must have shape"):
        level_softmax(*made.tensors, Future(*future), made.kept_tokens, **made.settings)


def test_tensors_on_other_devices_are_refused(call):
    made = call()
    elsewhere = made.future._replace(keys=made.future.keys.to("meta"))
    with pytest.raises(TypeError, match=r"`future\.keys` must lie on cpu"):
        level_softmax(*made.tensors, elsewhere, made.kept_tokens, **made.settings)


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"window": 0}, ValueError, "`window` must be at least 1, but got window=0"),
        ({"softcap": -1.0}, ValueError, "`softcap` must be above 0, but got softcap=-1.0"),
        ({"sinks": torch.zeros(3)}, ValueError, r"`sinks` must have shape \(4,\)"),
        ({"sinks": torch.zeros(8)}, ValueError, r"`sinks` must have shape \(4,\)"),
        ({"sinks": torch.zeros(4, device="meta")}, TypeError, "`sinks` must lie on cpu"),
        ({"slopes": torch.zeros(2)}, ValueError, r"`slopes` must have shape \(4,\)"),
        ({"slopes": torch.zeros(4).half()}, TypeError, "`slopes` must be torch.float32"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(call, setting, error, words):
    made = call()
    settings = made.settings | setting
    with pytest.raises(error, match=words):
        level_softmax(*made.tensors, made.future, made.kept_tokens, **settings)
