"""Tokens in a rectangle tell which of them are newest, and can be joined by newer ones."""

import torch

from kvbudget.runtime.padded_tokens import block_tokens


def test_a_block_stands_in_consecutive_columns_and_can_be_joined():
    held = torch.tensor([[True, True, False], [True, True, True]])
    keys = torch.arange(24.0).view(2, 1, 3, 4)
    block = block_tokens(keys, -keys, 5, held, 2)
    assert block.positions[1, 0].tolist() == [5, 6, 7]
    assert torch.equal(block.valid[:, 0], held)
    assert block.state.shape == (2, 1, 3, 2)
    newer = block_tokens(keys[:, :, :1], -keys[:, :, :1], 8, held[:, :1], 2)
    joined = block.join(newer)
    assert joined.positions[0, 0].tolist() == [5, 6, 7, 8]
    assert torch.equal(joined.values, -joined.keys)
    assert joined.from_column(6)[:, 0].tolist() == [
        [False, True, False, True],
        [False, True, True, True],
    ]
    first = torch.tensor([8, 6])[:, None, None]
    assert joined.from_column(first).sum(-1).flatten().tolist() == [1, 3]
