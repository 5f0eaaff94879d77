"""The Triton kernels of attention sums against the reference, on a GPU or in the interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
elif torch.cuda.is_available():
    DEVICE = "cuda"
else:
    pytest.skip("no GPU; test_interpreter.py runs this file", allow_module_level=True)

pytest.importorskip("triton", reason="triton is not installed (it is made for Linux only)")

from kvbudget.kernels.attention_sums import reference, triton_kernel
from kvbudget.kernels.launches import Launch, Program, using

# relative, and absolute; products of half precision are exact in float32 on both sides
TOLERANCE = {torch.float32: (2e-5, 2e-6), torch.float16: (2e-5, 2e-6), torch.bfloat16: (2e-5, 2e-6)}
# caches of one sequence and one KV head: the interpreter is slow
ONE = {"batch": 1, "kv_heads": 1}


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """What is allocated holds nonsense until it is written."""
    empty = torch.empty

    def poisoned(*shape, **options):
        made = empty(*shape, **options)
        return made.fill_(float("nan") if made.is_floating_point() else 3)

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several blocks, tiles and splits already at small sizes."""
    small = Launch(rows=16, tokens=16, split_tokens=32)
    monkeypatch.setattr(triton_kernel, "_LOOKED_AT", 16)
    names = (Program.SUMS_NORMALISE, Program.SUMS_JOIN, Program.SUMS_ADD)
    with using(dict.fromkeys(names, small)):
        yield


def assert_equals_reference(call):
    got = call.run(triton_kernel.attention_sums, DEVICE)
    assert got.dtype == torch.float32
    rtol, atol = TOLERANCE[call.tensors[0].dtype]
    wanted = call.run(reference.attention_sums)
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol)
    return got


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("group", [1, 3])
def test_the_newest_queries_over_uneven_caches_equal_the_reference(call, group, dtype):
    assert_equals_reference(call(tokens=75, new=5, group=group, head_dim=32, dtype=dtype, **ONE))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    "options",
    [
        {"window": 20},
        {"softcap": 0.5, "scaling": 1.0},
        {"sinks": True},
        {"slopes": True},
        {"slopes": True, "window": 9, "sinks": True, "softcap": 2.0, "group": 3},
        {"sinks": True, "dtype": torch.bfloat16, "head_dim": 80},
        {"head_dim": 24, "kv_heads": 2},
        {"tokens": 1},
        {"held": 0.0, "sinks": True},
        {"held": 0.1},
    ],
    ids=str,
)
def test_every_setting_equals_the_reference(call, options):
    assert_equals_reference(call(**{"new": 9, "tokens": 37, **ONE} | options))


@pytest.mark.usefixtures("small_tiles")
def test_one_query_of_several_sequences_equals_the_reference(call):
    assert_equals_reference(call(new=1, batch=3, sinks=True, window=30))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("enough", "options"), [(1, {}), (512, {}), (512, {"window": 9}), (1, {"sinks": True})]
)
def test_a_padded_prompt_equals_the_reference_split_or_not(prompt, monkeypatch, options, enough):
    monkeypatch.setattr(triton_kernel, "_ENOUGH_PROGRAMS", enough)
    # the last tile holds nothing but what the newest query alone sees
    call = prompt(tokens=49, padding=21, kv_heads=1, group=2, **options)
    sums = assert_equals_reference(call)
    assert (sums[1, :, :21] == 0).all()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("window", [1, 16, 40])
def test_queries_in_any_order_equal_the_reference(prompt, window):
    call = prompt(tokens=50, window=window, **ONE)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    call.tensors[0].copy_(call.tensors[0][:, :, order])
    call.tensors[4].copy_(order)
    assert_equals_reference(call)


@pytest.mark.usefixtures("small_tiles")
def test_a_sequence_of_nothing_but_padding_gets_nothing(prompt):
    for sinks in (False, True):
        call = prompt(tokens=20, padding=20, sinks=sinks, kv_heads=1)
        sums = assert_equals_reference(call)
        assert (sums[1] == 0).all()


@pytest.mark.usefixtures("small_tiles")
def test_queries_that_see_nothing_among_others_give_nothing(prompt):
    call = prompt(tokens=40, window=3, **ONE)
    call.tensors[2][..., 18:24] = False
    assert torch.isfinite(assert_equals_reference(call)).all()


@pytest.mark.usefixtures("small_tiles")
def test_logits_far_apart_neither_overflow_nor_vanish(call):
    made = call(scaling=80.0, tokens=50, sinks=True, **ONE)
    got = made.run(triton_kernel.attention_sums, DEVICE)
    wanted = made.run(reference.attention_sums)
    assert made.tensors[1].nan_to_num(0.0).abs().max() * 80 > 200
    # a logit of some hundreds is rounded by some 1e-5, and its exponential with it
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"head_dim": 300}, {"sinks": True, "new": 40}], ids=str)
def test_real_tile_sizes_equal_the_reference(call, options):
    assert_equals_reference(call(**{"tokens": 200, "head_dim": 64, **ONE} | options))


@pytest.mark.parametrize("split_tokens", [64, 1024])
def test_real_tiles_of_half_precision_equal_the_reference(call, split_tokens):
    with using({Program.SUMS_NORMALISE: Launch(64, 64, split_tokens)}):
        half = {"dtype": torch.bfloat16, "head_dim": 64}
        assert_equals_reference(call(tokens=200, new=33, **half, **ONE))


@pytest.mark.usefixtures("small_tiles")
def test_tensors_may_have_any_strides(call):
    made = call(tokens=40, new=9)
    queries, keys, valid, positions, at = (x.to(DEVICE) for x in made.tensors)
    wide = torch.stack([at, at], 1)[:, 0]
    views = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (queries, keys)]
    views[1] = views[1].transpose(1, 3).contiguous().transpose(1, 3)
    turned = [x.transpose(0, 2).contiguous().transpose(0, 2) for x in (valid, positions)]
    assert not any(x.is_contiguous() for x in (*views, *turned, wide))
    got = triton_kernel.attention_sums(*views, *turned, wide, **made.settings)
    torch.testing.assert_close(got.cpu(), made.run(reference.attention_sums))


@pytest.mark.usefixtures("small_tiles")
def test_the_same_call_gives_the_same_bits(call):
    made = call(tokens=75, new=9, group=3, **ONE)
    first = made.run(triton_kernel.attention_sums, DEVICE)
    assert torch.equal(first, made.run(triton_kernel.attention_sums, DEVICE))
