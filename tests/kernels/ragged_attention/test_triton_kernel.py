"""The Triton kernels against the reference.

They run on a GPU where there is one, else in Triton's interpreter, which has to be asked for before
triton is imported: `test_interpreter.py` runs this file in a process of its own.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
elif torch.cuda.is_available():
    DEVICE = "cuda"
else:
    pytest.skip("no GPU; test_interpreter.py runs this file", allow_module_level=True)

pytest.importorskip("triton", reason="triton is not installed (it is made for Linux only)")

from kvbudget.kernels.launches import Launch, Program, using
from kvbudget.kernels.ragged_attention import Prefix, reference, triton_kernel

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def small_tiles():
    """Several slices per segment, tiles per slice and rounds of joining at small sizes."""
    small = Launch(rows=16, tokens=16, split_tokens=32)
    with using(dict.fromkeys(Program, small) | {Program.JOIN: Launch(rows=2)}):
        yield


def assert_equals_reference(call, dtype=torch.float32):
    wanted = call.run(reference.ragged_attention)
    for got, expected in zip(
        call.to(DEVICE).run(triton_kernel.ragged_attention), wanted, strict=True
    ):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("group", [1, 4, 8])
def test_decoding_equals_the_reference(case, group, dtype):
    sizes = [37, 0, 100, 1]
    call = case(sizes, group=group, tail_tokens=35, head_dim=32, value_dim=32, dtype=dtype)
    assert_equals_reference(call, dtype)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    "options",
    [
        {"window": 20},
        {"softcap": 0.5, "scaling": 1.0},
        {"sinks": True},
        {"slopes": True},
        {"slopes": True, "window": 20, "sinks": True, "group": 3},
        {"first_seen": torch.int32},
        {"first_seen": torch.int64, "window": 20, "sinks": True, "softcap": 2.0},
        {"first_seen": torch.int64, "slopes": True, "dtype": torch.bfloat16},
        {"window": 9, "softcap": 3.0, "sinks": True, "tail_tokens": 40},
        {"head_dim": 24, "value_dim": 40},
        {"head_dim": 96, "value_dim": 16, "dtype": torch.bfloat16},
        {"tail_tokens": 0},
        {"tail_tokens": 2, "window": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("new", [1, 5])
def test_every_setting_equals_the_reference(case, new, options):
    options = {"tail_tokens": 7, "group": 4} | options
    call = case([35, 3], new=new, seed=new, **options)
    assert_equals_reference(call, options.get("dtype", torch.float32))


@pytest.mark.usefixtures("small_tiles")
def test_many_new_tokens_of_several_sequences_equal_the_reference(case):
    sizes = [0, 20, 0, 33, 0, 0]
    call = case(sizes, kv_heads=3, group=2, new=19, tail_tokens=19, window=30, sinks=True)
    assert_equals_reference(call)


@pytest.mark.usefixtures("small_tiles")
def test_slopes_and_bounds_of_several_sequences_equal_the_reference(case):
    sizes = [0, 20, 7, 33, 0, 12]
    options = {"slopes": True, "first_seen": torch.int64, "seed": 3}
    call = case(sizes, kv_heads=3, group=2, new=9, tail_tokens=11, **options)
    assert_equals_reference(call)


def test_real_tile_sizes_equal_the_reference(case):
    call = case([300, 61], group=4, new=2, tail_tokens=70, head_dim=64, value_dim=64)
    assert_equals_reference(call)


def test_a_cache_of_one_token_equals_the_reference(case):
    assert_equals_reference(case([0, 0], tail_tokens=1, gaps=0))
    assert_equals_reference(case([1, 0], tail_tokens=0, gaps=0))


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("sizes", [[4, 4], [0, 0]])
def test_a_query_that_sees_nothing_gets_zeros(case, sizes, sinks):
    call = case(sizes, tail_tokens=0, window=1, gaps=9, sinks=sinks)
    call.tensors[4].zero_()
    out, mass, _ = call.to(DEVICE).run(triton_kernel.ragged_attention)
    assert (out == 0).all()
    assert torch.equal(mass.cpu(), call.mass)


@pytest.mark.parametrize("given", ["mass", "tail_mass"])
@pytest.mark.parametrize("new", [1, 12])  # few rows are noted, many are read again
def test_either_mass_may_be_left_out(case, given, new):
    call = case([9, 5], group=2, new=new, tail_tokens=12)
    wanted = dict(zip(("mass", "tail_mass"), call.run(reference.ragged_attention)[1:], strict=True))
    moved = call.to(DEVICE)
    got = getattr(moved, given).clone()
    attention = partial(triton_kernel.ragged_attention, *moved.tensors, **moved.settings)
    attention(**{given: got})
    torch.testing.assert_close(got.cpu(), wanted[given], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("free", [[3, 0], [0, 50]])
def test_free_rows_are_never_read_and_kept_rows_may_lie_in_any_order(case, free, new):
    sizes = [37, 1]
    options = {"window": 60, "slopes": True, "tail_tokens": 9, "group": 4}
    assert_equals_reference(case(sizes, new=new, free=free, shuffled=True, **options))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("tail_tokens", [0, 5, 40])
def test_lengths_on_the_device_outweigh_those_of_the_host(case, tail_tokens, new):
    options = {"kv_heads": 1, "group": 4, "window": 30, "sinks": True}
    call = case([35], new=new, tail_tokens=tail_tokens, **options)
    wanted = call.run(reference.ragged_attention)
    moved = call.to(DEVICE)
    known = (tail_tokens, call.settings["seen_tokens"])
    moved.settings["lengths"] = torch.tensor(known, dtype=torch.int32, device=DEVICE)
    moved.settings["seen_tokens"] = 10_000
    wrong = replace(moved, tensors=(*moved.tensors[:-1], 1))
    for got, expected in zip(wrong.run(triton_kernel.ragged_attention), wanted, strict=True):
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    "options",
    [
        {"head_dim": 576, "value_dim": 512, "group": 16, "dtype": torch.bfloat16},
        {"head_dim": 576, "value_dim": 512, "group": 20, "dtype": torch.float16},
        {"head_dim": 40, "value_dim": 24, "group": 20},
        {"head_dim": 96, "value_dim": 40, "group": 2, "new": 9, "slopes": True},
    ],
    ids=str,
)
def test_keys_that_are_read_in_two_tiles_equal_the_reference(case, options):
    call = case([21, 3], kv_heads=1, tail_tokens=9, scaling=0.05, **options)
    assert_equals_reference(call, options.get("dtype", torch.float32))


@pytest.mark.usefixtures("small_tiles")
def test_windows_and_bounds_may_hide_any_part_of_a_long_tail(case):
    for window, first_seen in ((7, None), (20, torch.int64), (None, torch.int32)):
        call = case([9], kv_heads=1, new=37, tail_tokens=50, window=window, first_seen=first_seen)
        assert_equals_reference(call)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("new", [1, 5])
def test_a_prefix_changed_in_place_is_followed_without_new_tensors(case, new):
    sizes, rooms = [[37, 0], [0, 0], [2, 64]], [40, 70]
    frees = [[room - size for size, room in zip(x, rooms, strict=True)] for x in sizes]
    calls = [
        case(size, group=4, new=new, tail_tokens=9, free=free, seed=seed)
        for seed, (size, free) in enumerate(zip(sizes, frees, strict=True))
    ]
    moved = [call.to(DEVICE) for call in calls]
    kept, ends = moved[0].tensors[1:5], moved[0].settings["ends"]
    prefix = Prefix(*kept, ends)
    places = set()
    for call, now in zip(calls, moved, strict=True):
        for mine, its in zip((*kept, ends), (*now.tensors[1:5], now.settings["ends"]), strict=True):
            mine.copy_(its)
        prefix.renew()
        settings = now.settings | {"prefix": prefix, "ends": ends}
        held = replace(now, tensors=(now.tensors[0], *kept, *now.tensors[5:]), settings=settings)
        wanted = call.run(reference.ragged_attention)
        for got, expected in zip(held.run(triton_kernel.ragged_attention), wanted, strict=True):
            torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-5)
        places.add(prefix.work_list(32).start.data_ptr())
    assert len(places) == 1


@pytest.mark.parametrize(
    ("width", "tiles"),
    [
        *((1, (16, 0)), (16, (16, 0)), (24, (32, 0)), (40, (32, 16)), (64, (64, 0))),
        *((80, (64, 16)), (96, (64, 32)), (112, (128, 0)), (128, (128, 0)), (192, (128, 64))),
        *((256, (256, 0)), (512, (512, 0)), (576, (512, 64))),
    ],
)
def test_two_tiles_are_taken_only_where_they_waste_less_than_one(width, tiles):
    assert triton_kernel.pieces(width) == tiles


def test_slices_grow_with_the_rows_and_shrink_with_the_storage(monkeypatch):
    launch, device = Launch(rows=64, split_tokens=256), torch.device(DEVICE)
    monkeypatch.setattr(triton_kernel, "_processors", lambda device: 100)
    for rows, stored, wanted in (
        *((4, 10**6, 256), (4, 25600, 256), (4, 25599, 128), (4, 10, 64), (64, 25600, 256)),
        *((65, 10**6, 512), (4096, 10**6, 16384), (4096, 25600, 16384), (128, 25599, 256)),
        (10**6, 10**9, 2**16),
    ):
        assert triton_kernel.split_tokens(launch, rows, stored, device) == wanted


def test_every_call_has_a_row_of_the_table():
    chosen = triton_kernel.program_for
    assert chosen(1, 64, 128, 2) is Program.ATTEND_FEW
    assert chosen(16, 129, 64, 2) is Program.ATTEND_FEW_WIDE
    assert chosen(17, 128, 128, 2) is Program.ATTEND_MANY
    assert chosen(17, 64, 256, 2) is Program.ATTEND_MANY_WIDE
    assert chosen(1, 257, 128, 2) is Program.ATTEND_LATENT
    assert chosen(64, 256, 256, 4) is Program.ATTEND_FLOAT32


def test_what_is_known_of_a_prefix_may_be_kept_while_the_tail_grows(case):
    calls = [case([40, 3], tail_tokens=n, gaps=30 - n).to(DEVICE) for n in (1, 9)]
    fixed = calls[0].tensors[1:5]
    prefix = Prefix(*fixed)
    for call in calls:
        tensors = (call.tensors[0], *fixed, *call.tensors[5:])
        kept = triton_kernel.ragged_attention(*tensors, **call.settings, prefix=prefix)
        anew = triton_kernel.ragged_attention(*tensors, **call.settings)
        assert torch.equal(kept, anew)
