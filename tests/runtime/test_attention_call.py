"""Dense attention of a call, against one softmax written out."""

import math

import pytest
import torch

from kvbudget.runtime.attention_call import AttentionCall, LogitRules, dense_attention

BATCH, HEADS, KV_HEADS, NEW, COLUMNS, DIM = 2, 4, 2, 6, 11, 8


def make_call(mask=None, **rules):
    """Six queries at the end of eleven columns."""
    draw = torch.Generator().manual_seed(0)
    queries = torch.randn(BATCH, HEADS, NEW, DIM, generator=draw)
    keys, values = torch.randn(2, BATCH, KV_HEADS, COLUMNS, DIM, generator=draw)
    return AttentionCall(torch.nn.Identity(), queries, keys, values, mask, LogitRules(0.3, **rules))


def written_out(call):
    """[batch, new, heads, dim], one query of one head at a time, float64."""
    output = torch.zeros(BATCH, NEW, HEADS, DIM, dtype=torch.float64)
    for row in range(BATCH):
        for head in range(HEADS):
            keys, values = (each[row, head // 2].double() for each in (call.keys, call.values))
            for query in range(NEW):
                column = COLUMNS - NEW + query
                logits = 0.3 * keys @ call.queries[row, head, query].double()
                if call.rules.slopes is not None:
                    steps = torch.arange(COLUMNS) - column
                    logits = logits + call.rules.slopes[head].double() * steps
                logits[column + 1 :] = -math.inf
                if call.mask is not None:
                    logits[~call.mask[row, 0, query]] = -math.inf
                output[row, query, head] = logits.softmax(0) @ values
    return output


@pytest.mark.parametrize("slopes", [None, torch.tensor([0.5, 0.25, 0.1, 2.0])])
@pytest.mark.parametrize("is_padded", [False, True])
def test_linear_biases_are_counted_in_columns(slopes, is_padded):
    mask = None
    if is_padded:
        column = torch.arange(COLUMNS)
        mask = (column <= column[-NEW:, None]).expand(BATCH, 1, NEW, COLUMNS).clone()
        mask[1, ..., :3] = False
    call = make_call(mask, slopes=slopes)
    found = dense_attention(call)
    torch.testing.assert_close(found.double(), written_out(call), atol=1e-6, rtol=0)


def test_query_chunks_make_no_difference(monkeypatch):
    call = make_call(slopes=torch.tensor([0.5, 0.25, 0.1, 2.0]))
    whole = dense_attention(call)
    monkeypatch.setattr("kvbudget.runtime.attention_call.QUERY_CHUNK", 4)
    torch.testing.assert_close(dense_attention(call), whole, atol=1e-6, rtol=0)
