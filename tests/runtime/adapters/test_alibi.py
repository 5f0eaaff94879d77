"""The slopes are those with which transformers fills its bias tensors."""

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from kvbudget.runtime.adapters.alibi import bloom_slopes, mpt_slopes

CPU = torch.device("cpu")
HEADS = [1, 2, 3, 4, 6, 8, 12, 16, 20, 32, 71, 112]


@pytest.mark.parametrize("heads", HEADS)
def test_bloom_slopes_are_the_steps_of_its_biases(heads):
    biases = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)
    assert torch.equal(bloom_slopes(heads, CPU), biases[:, 0, 1])


@pytest.mark.parametrize("heads", HEADS)
def test_mpt_slopes_are_the_steps_of_its_biases(heads):
    biases = build_mpt_alibi_tensor(heads, 2)
    assert torch.equal(mpt_slopes(heads, 8, CPU), -biases[:, 0, 0])


@pytest.mark.parametrize("heads", [2, 8, 64])
def test_slopes_of_a_power_of_two_are_the_published_geometric_series(heads):
    series = [2 ** (-8 * (head + 1) / heads) for head in range(heads)]
    torch.testing.assert_close(bloom_slopes(heads, CPU), torch.tensor(series))
    torch.testing.assert_close(mpt_slopes(heads, 8, CPU), torch.tensor(series))
