import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Geometry, Tokens, parse_budget

# 2 layers x 3 heads x 512 bytes per token
GEOMETRY = Geometry("LlamaForCausalLM", 2, 3, 64, 64, "float32", (None, None))
FULL = 100 * 6 * 512


def parse(budget: Any, batch_size: int = 1) -> int:
    return parse_budget(budget, GEOMETRY, 100, batch_size)


@pytest.mark.parametrize(
    ("budget", "num_bytes"),
    [
        (12345, 12345),
        (np.int64(7), 7),
        ("1B", 1),
        ("1000B", 1000),
        ("64KiB", 65536),
        ("512MiB", 512 * 2**20),
        ("2GiB", 2**31),
        ("1 TiB", 2**40),
        ("1KB", 1000),
        ("1.5GB", 1_500_000_000),
        ("  1.5 gib ", 3 * 2**29),
        ("0.1KB", 100),
        ("100%", FULL),
        ("25%", FULL // 4),
        ("33.3 %", FULL * 333 // 1000),
        (Tokens(10), 10 * 6 * 512),
    ],
)
def test_a_budget_is_read_exactly(budget: Any, num_bytes: int) -> None:
    assert parse(budget) == num_bytes
    assert type(parse(budget)) is int


def test_shares_and_tokens_grow_with_the_batch_and_bytes_do_not() -> None:
    assert parse("50%", batch_size=4) == 2 * FULL
    assert parse(Tokens(10), batch_size=4) == 4 * parse(Tokens(10))
    assert parse(1000, batch_size=4) == 1000


def test_a_share_of_a_sliding_model_is_a_share_of_what_it_needs() -> None:
    geometry = Geometry("A", 2, 1, 1, 1, "float16", (None, 10))
    assert parse_budget("50%", geometry, 100, 1) == 110 * 4 // 2


@given(st.integers(1, 10**6), st.integers(0, 999))
def test_fractions_of_a_byte_are_dropped_and_nothing_more(whole: int, thousandths: int) -> None:
    assert parse(f"{whole}.{thousandths:03}KB") == whole * 1000 + thousandths
    assert parse(f"{whole}.{thousandths:03}B") == whole


@pytest.mark.parametrize(
    "budget",
    [
        *("banana", "", "12", "GiB", "-1GiB", "1e9B", "nan%", "NaN", "inf", "25 percent"),
        *("1.GB", ".5GB", "1,5GB", "2GiB!", "0%", "0.0GiB", "0B", "0.5B", "101%", "100.1%"),
        *(0, -1, "9" * 5000 + "B"),
    ],
)
def test_an_unusable_budget_is_refused_in_one_sentence(budget: Any) -> None:
    with pytest.raises(ValueError, match=r"^`budget` must be .*, but got .*\.$") as caught:
        parse(budget)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("budget", [True, 1.5, math.nan, None, [1], b"1GiB", np.float64(3)])
def test_a_budget_of_another_type_is_refused(budget: Any) -> None:
    with pytest.raises(TypeError, match=r"^`budget` must be an int of bytes"):
        parse(budget)


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-3, ValueError), (True, TypeError), (1.5, TypeError)]
)
def test_tokens_must_be_a_count(count: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`count` must be"):
        Tokens(count)


def test_tokens_read_as_words() -> None:
    assert str(Tokens(1024)) == "1024 tokens per cache"
