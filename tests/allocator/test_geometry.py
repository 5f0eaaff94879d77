import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import DEFAULT_LEVELS, CacheShape, Geometry

FULL = Geometry("LlamaForCausalLM", 2, 3, 64, 64, "float16", (None, None))


def test_a_token_costs_its_key_and_its_value() -> None:
    assert FULL.bytes_per_token == 128 * 2
    assert replace(FULL, value_dim=16).bytes_per_token == 80 * 2


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_the_element_type_sets_the_size(dtype: str, size: int) -> None:
    geometry = FULL.with_dtype(dtype)
    assert geometry.bytes_per_token == 128 * size
    assert geometry.dtype == dtype
    assert FULL.dtype == "float16"


def test_capacity_has_one_number_per_cache_and_level() -> None:
    capacity = FULL.capacity_tokens([0.5, 1.0], 10)
    assert capacity.shape == (2, 3, 2)
    assert capacity.dtype == np.int64
    assert (capacity == [5, 10]).all()


def test_capacity_is_rounded_down_but_not_by_rounding_noise() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point
    assert FULL.capacity_tokens([0.079, 0.29, 1.0], 100)[0, 0].tolist() == [7, 29, 100]


def test_capacity_is_at_least_one_token_and_at_most_the_window() -> None:
    geometry = replace(FULL, windows=(None, 16))
    capacity = geometry.capacity_tokens([0.001, 0.1, 0.5, 1.0], 100)
    assert capacity[0, 0].tolist() == [1, 10, 50, 100]
    assert geometry.capacity_tokens([1e-15, 1.0], 100)[0, 0].tolist() == [1, 100]
    assert capacity[1, 0].tolist() == [1, 10, 16, 16]


@given(
    tokens=st.integers(1, 10**6),
    fractions=st.lists(st.sampled_from(DEFAULT_LEVELS), min_size=1, unique=True),
)
def test_capacity_is_the_exact_floor_of_decimal_shares(tokens: int, fractions: list[float]) -> None:
    wanted = [max(1, math.floor(Fraction(str(f)) * tokens)) for f in fractions]
    assert FULL.capacity_tokens(fractions, tokens)[1, 2].tolist() == wanted


def test_the_full_cache_counts_a_sliding_layer_by_its_window() -> None:
    geometry = replace(FULL, windows=(None, 16))
    assert geometry.full_bytes(100) == (100 + 16) * 3 * 256
    assert geometry.full_bytes(10, batch_size=4) == 20 * 3 * 256 * 4


def test_json_gives_the_same_geometry_back() -> None:
    geometry = replace(FULL, windows=(None, 16))
    assert Geometry.from_json(json.loads(json.dumps(geometry.to_json()))) == geometry


def test_it_reads_as_one_line() -> None:
    geometry = Geometry("LlamaForCausalLM", 6, 4, 32, 32, "bfloat16", (None,) * 6)
    text = "LlamaForCausalLM (6 layers x 4 KV heads, head size 32, bfloat16)"
    assert str(geometry) == text
    assert "key size 32, value size 8" in str(replace(geometry, value_dim=8))


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("layers", 0, ValueError, "`layers` must be at least 1, but got layers=0."),
        ("kv_heads", -1, ValueError, "`kv_heads` must be at least 1"),
        ("kv_heads", 2.0, TypeError, "`kv_heads` must be an integer, but got 2.0."),
        ("head_dim", True, TypeError, "`head_dim` must be an integer, but got True."),
        ("value_dim", "8", TypeError, "`value_dim` must be an integer, but got '8'."),
        ("dtype", "int8", ValueError, "`dtype` must be one of 'float32', 'float16', 'bfloat16'"),
        ("dtype", 16, TypeError, "`dtype` must be a string"),
        ("architecture", None, TypeError, "`architecture` must be a string"),
        ("windows", (None,), ValueError, "but got 1 for 2 layers"),
        ("windows", (None, 0), ValueError, "`windows` must be at least 1"),
        ("windows", (None, "4"), TypeError, "`windows` must be an integer"),
        ("windows", None, TypeError, "`windows` must be a tuple"),
    ],
)
def test_a_bad_field_is_refused(
    field: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        replace(FULL, **{field: value})
    assert message in str(caught.value)


@pytest.mark.parametrize("use", [FULL.full_bytes, lambda c: FULL.capacity_tokens([1.0], c)])
@pytest.mark.parametrize("context", [0, -5, 2**41])
def test_a_context_out_of_range_is_refused(use: Callable[[int], object], context: int) -> None:
    with pytest.raises(ValueError, match="`context_tokens` must be at"):
        use(context)


@pytest.mark.parametrize("name", list(FULL.to_json()))
def test_json_without_a_field_is_refused_by_its_name(name: str) -> None:
    record = FULL.to_json()
    del record[name]
    with pytest.raises(ValueError, match=f"the field `{name}` is missing"):
        Geometry.from_json(record)


@pytest.mark.parametrize(
    ("name", "value"),
    [("layers", True), ("layers", 2.0), ("dtype", None), ("windows", "ab"), ("windows", {})],
)
def test_json_of_another_type_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"the field `{name}` must be"):
        Geometry.from_json({**FULL.to_json(), name: value})


def test_windows_and_counts_become_plain_python() -> None:
    geometry = Geometry("A", np.int64(2), 1, 1, 1, "float32", [None, 4])  # type: ignore[arg-type]
    assert geometry.windows == (None, 4)
    assert type(geometry.layers) is int
    assert hash(geometry) == hash(replace(geometry))


SHAPES = (CacheShape(3, 4, 4), CacheShape(1, 8, 6), CacheShape(2, 4, 4))
UNEQUAL = Geometry.of_layers("Gemma4ForCausalLM", SHAPES, "float16", (16, None, None))


def test_layers_of_unequal_caches_keep_their_own_shapes() -> None:
    assert (UNEQUAL.layers, UNEQUAL.kv_heads, UNEQUAL.head_dim, UNEQUAL.value_dim) == (3, 3, 8, 6)
    assert UNEQUAL.shapes == SHAPES
    assert UNEQUAL.shape_of(1) == CacheShape(1, 8, 6)
    assert FULL.shapes == (CacheShape(3, 64, 64),) * 2
    assert FULL.shape_of(1) == CacheShape(3, 64, 64)


def test_caches_that_a_layer_does_not_have_count_for_nothing() -> None:
    assert UNEQUAL.caches == 6
    assert UNEQUAL.present.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert UNEQUAL.token_bytes.tolist() == [[16, 16, 16], [28, 0, 0], [16, 16, 0]]
    assert UNEQUAL.token_bytes.dtype == np.int64
    assert UNEQUAL.capacity_tokens([0.5, 1.0], 100)[..., 1].tolist() == [
        [16, 16, 16],
        [100, 0, 0],
        [100, 100, 0],
    ]


def test_the_full_cache_is_the_sum_over_unequal_layers() -> None:
    assert UNEQUAL.full_bytes(100) == 3 * 16 * 16 + 100 * 28 + 2 * 100 * 16
    assert UNEQUAL.full_bytes(10, batch_size=4) == 4 * 10 * int(UNEQUAL.token_bytes.sum())
    assert UNEQUAL.with_dtype("float32").full_bytes(100) == 2 * UNEQUAL.full_bytes(100)
    assert UNEQUAL.bytes_of([1, 2, 3], 2) == 2 * (3 * 16 + 2 * 28 + 3 * 2 * 16)


def test_bytes_of_equal_layers_are_the_same_both_ways() -> None:
    assert (FULL.token_bytes == FULL.bytes_per_token).all()
    assert FULL.token_bytes.shape == (2, 3)
    assert FULL.present.all()


def test_one_number_of_bytes_is_refused_where_layers_differ_in_it() -> None:
    with pytest.raises(ValueError, match=r"must be the same for all caches.*Use token_bytes"):
        assert UNEQUAL.bytes_per_token
    fewer = (CacheShape(3, 4, 4), CacheShape(1, 4, 4))
    assert Geometry.of_layers("A", fewer, "float16", (None, None)).bytes_per_token == 16


def test_values_of_caches_go_to_their_places_and_back() -> None:
    grid = UNEQUAL.on_grid(np.arange(1, 7))
    assert grid.tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]
    assert grid[UNEQUAL.present].tolist() == [1, 2, 3, 4, 5, 6]
    assert UNEQUAL.on_grid(np.ones((6, 2, 5))).shape == (3, 3, 2, 5)
    with pytest.raises(ValueError, match="must have one entry per cache, 6, but got 9"):
        UNEQUAL.on_grid(np.ones(9))


def test_equal_shapes_make_an_ordinary_geometry() -> None:
    same = Geometry.of_layers("LlamaForCausalLM", [SHAPES[0]] * 2, "float16", (None, None))
    assert same == Geometry("LlamaForCausalLM", 2, 3, 4, 4, "float16", (None, None))
    assert same.layer_shapes is None


def test_unequal_layers_are_not_their_largest() -> None:
    largest = Geometry("Gemma4ForCausalLM", 3, 3, 8, 6, "float16", (16, None, None))
    assert largest != UNEQUAL
    assert hash(UNEQUAL) == hash(replace(UNEQUAL))


def test_the_stated_shape_must_be_the_largest() -> None:
    with pytest.raises(ValueError, match=r"must be the largest of `layer_shapes`.*of_layers"):
        replace(UNEQUAL, head_dim=9)
    with pytest.raises(ValueError, match="`layers` must be at least 1"):
        Geometry.of_layers("A", [], "float16", ())
    with pytest.raises(ValueError, match="`layer_shapes` must have one entry per layer"):
        replace(UNEQUAL, layer_shapes=SHAPES[:2])


def test_json_gives_unequal_layers_back() -> None:
    record = json.loads(json.dumps(UNEQUAL.to_json()))
    assert Geometry.from_json(record) == UNEQUAL
    # whoever knows nothing of unequal layers must not read this as equal ones
    assert not {"kv_heads", "head_dim", "value_dim"} & set(record)
    assert "layer_shapes" not in FULL.to_json()


@pytest.mark.parametrize("shapes", [[[3, 4, 4]] * 2, [[3, 4]] * 3, [1, 2, 3], "abc", None])
def test_json_with_other_shapes_is_refused_by_their_name(shapes: object) -> None:
    with pytest.raises(ValueError, match="the field `layer_shapes` must"):
        Geometry.from_json({**UNEQUAL.to_json(), "layer_shapes": shapes})


def test_unequal_layers_read_as_one_line() -> None:
    assert str(UNEQUAL) == (
        "Gemma4ForCausalLM (3 layers: 1 with 3 KV heads, head size 4; 1 with 1 KV head, key size"
        " 8, value size 6; 1 with 2 KV heads, head size 4; float16)"
    )
