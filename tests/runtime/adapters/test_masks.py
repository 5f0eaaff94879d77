"""Masks of flash attention and of models that cut windows themselves."""

import torch
from transformers import BertConfig
from transformers.masking_utils import create_sliding_window_causal_mask

from kvbudget.runtime.adapters.masks import causal, windowed


def test_a_padding_mask_becomes_causal_and_hides_padding():
    padding = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    expected = torch.tensor(
        [[[0, 1, 1, 0], [0, 1, 1, 1]], [[1, 1, 1, 0], [1, 1, 1, 1]]], dtype=torch.bool
    )
    assert torch.equal(causal(padding, new=2), expected[:, None])


def test_other_masks_stay():
    mask = torch.zeros(1, 1, 2, 4)
    assert causal(mask, new=2) is mask
    assert causal(None, new=2) is None


def test_a_windowed_mask_is_that_of_transformers():
    config = BertConfig(sliding_window=3, attn_implementation="eager")
    embeds = torch.zeros(2, 7, 4)
    full = torch.zeros(2, 1, 7, 7).masked_fill(
        torch.ones(7, 7).triu(1).bool(), torch.finfo(torch.float32).min
    )
    theirs = create_sliding_window_causal_mask(config, embeds, None, None)
    assert torch.equal(windowed(full, 3) == 0, (theirs == 0).expand_as(full))
