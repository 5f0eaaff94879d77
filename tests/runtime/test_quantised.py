"""Models whose weights are quantised; their keys and values are not."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kvbudget import heuristics as H
from kvbudget.runtime import budgeted, geometry_of, measure_profile
from kvbudget.runtime.anatomy import attention_modules
from kvbudget.runtime.output_projection import output_weight

FAMILIES = ["Gemma3ForCausalLM", "GptOssForCausalLM", "LlamaForCausalLM", "Phi3ForCausalLM"]
PROMPT, NEW = 40, 12


class PackedLinear(nn.Module):
    """Two 4-bit numbers in a byte, under a name of its own, as several libraries store them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.compute_dtype = linear.in_features, linear.weight.dtype
        self.scale = float(linear.weight.detach().abs().max()) / 7
        codes = (linear.weight.detach() / self.scale).round().to(torch.int8) + 8
        packed = codes[:, ::2] * 16 + codes[:, 1::2]
        self.codes = nn.Parameter(packed.to(torch.uint8), requires_grad=False)
        self.bias = linear.bias

    def unpacked(self):
        codes = torch.stack([self.codes // 16, self.codes % 16], -1).flatten(1)
        return (codes.to(self.compute_dtype) - 8) * self.scale

    def forward(self, inputs):
        return nn.functional.linear(inputs, self.unpacked(), self.bias)


class ScaledLinear(nn.Module):
    """Codes that look like a weight, and the scale that makes numbers of them."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, weight = linear.in_features, linear.weight.detach()
        self.scale = nn.Parameter(weight.abs().amax(1, keepdim=True) / 100)
        self.weight = nn.Parameter((weight / self.scale).to(dtype), requires_grad=False)

    def unpacked(self):
        return self.weight.to(self.scale.dtype) * self.scale

    def forward(self, inputs):
        return nn.functional.linear(inputs, self.unpacked())


@pytest.fixture
def quantised():
    """Quantises a model's linear layers to 8 bits in place."""
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")

    def quantise(model):
        torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
        kinds = {type(each.weight.data) for each in model.modules() if isinstance(each, nn.Linear)}
        assert torch.Tensor not in kinds
        return model

    return quantise


def dequantised(model):
    """The same model, its weights as ordinary numbers."""
    plain = copy.deepcopy(model)
    for each in plain.modules():
        if isinstance(each, nn.Linear):
            each.weight = nn.Parameter(each.weight.dequantize())
    return plain


def prompt(seed=4, tokens=PROMPT):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(3, 97, (1, tokens), generator=draw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_geometry_is_that_of_the_keys_and_values(dtype, model_of, quantised):
    model = model_of("LlamaForCausalLM").to(dtype)
    before = geometry_of(model)
    assert geometry_of(quantised(copy.deepcopy(model))) == before
    assert before.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("architecture", FAMILIES)
def test_generation_that_keeps_everything_is_plain_generation(
    architecture, model_of, quantised, plan_for
):
    model = quantised(model_of(architecture))
    geometry = geometry_of(model)
    everything = np.full((geometry.layers, geometry.kv_heads), PROMPT + NEW)
    arguments = {"max_new_tokens": NEW, "do_sample": False}
    with budgeted(model, plan_for(geometry, everything, PROMPT + NEW)) as cache:
        ours = model.generate(prompt(), past_key_values=cache, **arguments)
    assert torch.equal(ours, model.generate(prompt(), **arguments))


@torch.inference_mode()
@pytest.mark.parametrize("architecture", FAMILIES)
def test_eviction_equals_dense_attention_with_evicted_columns_masked(
    architecture, model_of, quantised, plan_for, random_capacity, oracle
):
    model = quantised(model_of(architecture))
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 6, 20), 100)
    tokens, logits, held = prompt(tokens=PROMPT + NEW), [], []
    columns = [range(PROMPT), *([at] for at in range(PROMPT, PROMPT + NEW))]
    with budgeted(model, plan, H.CriticalKV()) as cache:
        for each in columns:
            logits.append(model(input_ids=tokens[:, each], past_key_values=cache).logits)
            held.append([cache.kept_positions(layer) for layer in range(geometry.layers)])
            assert cache.nbytes() <= plan.budget_bytes
    with oracle.installed(model) as everything:
        for at, each in enumerate(columns):
            oracle.held = held[at] if at else []
            expected = model(input_ids=tokens[:, each], past_key_values=everything).logits
            torch.testing.assert_close(logits[at], expected, atol=1e-5, rtol=1e-5)
    assert sum(len(kept) for kept in held[-1][0][0]) < geometry.kv_heads * (PROMPT + NEW)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_output_weight_is_what_the_quantised_numbers_mean(architecture, model_of, quantised):
    model = quantised(model_of(architecture))
    heads = model.config.num_attention_heads
    plain = attention_modules(dequantised(model))
    for (_, module), (_, expected) in zip(attention_modules(model), plain, strict=True):
        found = output_weight(module, heads)
        assert type(found) is torch.Tensor
        torch.testing.assert_close(found, output_weight(expected, heads), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_of_another_name_answer_for_themselves(dtype, has_bias, model_of):
    _, attention = attention_modules(model_of("LlamaForCausalLM"))[0]
    linear = nn.Linear(64, 32, bias=has_bias, dtype=dtype)
    attention.o_proj = packed = PackedLinear(linear)
    found = output_weight(attention, 4)
    assert found.dtype is dtype
    # with a bias, the difference of two answers is rounded
    tolerance = 2e-2 if has_bias and dtype is torch.bfloat16 else 1e-6
    expected = packed.unpacked().T.unflatten(0, (4, -1))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_codes_are_not_taken_for_weights(dtype, model_of):
    _, attention = attention_modules(model_of("LlamaForCausalLM"))[0]
    attention.o_proj = scaled = ScaledLinear(nn.Linear(64, 32), dtype)
    expected = scaled.unpacked().detach().T.unflatten(0, (4, -1))
    torch.testing.assert_close(output_weight(attention, 4), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("heuristic", [H.ObservationWindow(window=8), H.CriticalKV()])
@pytest.mark.parametrize("measure", ["divergence", "output_error", "attention_mass"])
def test_losses_are_those_of_the_numbers_the_weights_stand_for(
    measure, heuristic, model_of, quantised
):
    model = quantised(model_of("LlamaForCausalLM"))

    def measured(of):
        prompts, levels = [prompt(tokens=64)[0].tolist()], (0.2, 0.5, 1.0)
        return measure_profile(
            of, prompts, heuristic, levels=levels, measure=measure, progress=False
        ).loss

    expected = measured(dequantised(model))
    assert expected.max() > 1e-4
    np.testing.assert_allclose(measured(model), expected, rtol=1e-3, atol=1e-6)
