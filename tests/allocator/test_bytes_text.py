import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import format_bytes
from kvbudget.allocator.bytes_text import format_pair


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (3 * 2**20, "3.0 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (2**30, "1.0 GiB"),
        (5 * 2**40, "5.0 TiB"),
        (2**63, "8192.0 PiB"),
    ],
)
def test_a_size_reads_well(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


@given(st.integers(0, 2**50), st.integers(0, 2**50))
def test_two_sizes_read_the_same_only_if_they_are(one: int, other: int) -> None:
    texts = format_pair(one, other)
    assert (texts[0] == texts[1]) == (one == other)


def test_close_sizes_are_told_apart_to_the_byte() -> None:
    assert format_pair(2**20, 2**20 + 1) == ("1,048,576 B", "1,048,577 B")
    assert format_pair(2**20, 2**21) == ("1.0 MiB", "2.0 MiB")
