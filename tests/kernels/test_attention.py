"""The pieces of softmax attention that references and views share."""

import math

import pytest
import torch

from kvbudget.kernels import attention
from kvbudget.kernels.attention import (
    attention_logits,
    chunks,
    linear_bias,
    masked_softmax,
    visible,
)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 9])
def test_chunks_cover_every_index_once_and_in_order(length: int) -> None:
    covered = [i for part in chunks(length, 4) for i in range(part.start, part.stop)]
    assert covered == list(range(length))
    assert all(part.stop - part.start <= 4 for part in chunks(length, 4))


def test_logits_of_half_precision_are_computed_in_float32() -> None:
    queries, keys = torch.randn(3, 16).bfloat16(), torch.randn(5, 16).bfloat16()
    logits = attention_logits(queries, keys, scaling=0.25, softcap=None)
    wanted = queries.double() @ keys.double().T * 0.25
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-5, atol=1e-5)


def test_logits_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = torch.randn(2, 3, 8), torch.randn(2, 11, 8)
    whole = attention_logits(queries, keys, scaling=1.0, softcap=2.0)
    monkeypatch.setattr(attention, "TOKENS_PER_CHUNK", 4)
    torch.testing.assert_close(
        attention_logits(queries, keys, scaling=1.0, softcap=2.0), whole, rtol=1e-5, atol=1e-5
    )


def test_a_linear_bias_is_0_at_the_own_key_and_falls_by_its_slope() -> None:
    slopes = torch.tensor([[0.5, 2.0]])
    keys, queries = torch.tensor([[3, 4, 7]]), torch.tensor([4, 7])
    found = linear_bias(slopes, keys, queries)
    steps = torch.tensor([[-1.0, 0, 3], [-4, -3, 0]])
    assert torch.equal(found, torch.stack([0.5 * steps, 2 * steps])[None])
    assert torch.equal(linear_bias(slopes, keys[0], queries), found)


def test_softcap_bounds_the_scaled_logits() -> None:
    one = torch.tensor([[3.0]])
    capped = attention_logits(one, one, scaling=2.0, softcap=5.0)
    assert capped.item() == pytest.approx(5 * math.tanh(18 / 5))


def test_a_window_of_one_sees_only_the_query_itself() -> None:
    columns = torch.arange(4)
    assert torch.equal(visible(columns, columns, 1), torch.eye(4, dtype=torch.bool))


def test_without_a_window_a_query_sees_itself_and_everything_before() -> None:
    columns = torch.arange(4)
    seen = visible(columns, columns, None)
    assert torch.equal(seen, torch.ones(4, 4, dtype=torch.bool).tril())


def test_a_row_that_sees_nothing_is_zero_even_beside_nan() -> None:
    logits = torch.tensor([[float("nan"), float("nan")], [1.0, float("nan")]])
    seen = torch.tensor([[False, False], [True, False]])
    assert masked_softmax(logits, seen, None).tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_a_sink_takes_its_share_of_the_row() -> None:
    shares = masked_softmax(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1))
    torch.testing.assert_close(shares, torch.full((1, 2), 1 / 3))


def test_a_sink_far_above_all_logits_leaves_nothing_and_no_nan() -> None:
    seen = torch.ones(1, 2, dtype=torch.bool)
    assert masked_softmax(torch.zeros(1, 2), seen, torch.tensor([1e4])).tolist() == [[0.0, 0.0]]
