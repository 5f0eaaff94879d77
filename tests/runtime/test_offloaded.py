"""A model whose weights lie elsewhere and are loaded layer by layer, as `device_map` makes it."""

import numpy as np
import pytest
import torch

from kvbudget import heuristics as H
from kvbudget.runtime import geometry_of, measure_profile
from kvbudget.runtime.anatomy import attention_modules
from kvbudget.runtime.output_projection import output_weight

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

LEVELS = (0.2, 0.5, 1.0)


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(3, 97, (64,), generator=generator).tolist()]


@pytest.mark.parametrize(
    "architecture", ["GPT2LMHeadModel", "Gemma3ForCausalLM", "Phi3ForCausalLM"]
)
@pytest.mark.parametrize("measure", H.measures.names())
def test_losses_are_those_of_the_model_in_memory(architecture, measure, model_of, prompts):
    def measured(model):
        return measure_profile(
            model,
            prompts,
            H.ObservationWindow(window=8),
            levels=LEVELS,
            measure=measure,
            progress=False,
        ).loss

    model = accelerate.cpu_offload(model_of(architecture))
    assert model.device.type == "meta"
    expected = measured(model_of(architecture))
    np.testing.assert_allclose(measured(model), expected, rtol=1e-5, atol=1e-9)


def test_weights_on_disk_and_in_memory_can_be_mixed(model_of, prompts, tmp_path):
    model = model_of("LlamaForCausalLM")
    expected = measure_profile(model, prompts, H.KeyNorm(), levels=LEVELS, progress=False)
    places = {f"model.layers.{layer}": "disk" if layer == 1 else "cpu" for layer in range(3)}
    places |= {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "disk"}
    places["model.rotary_emb"] = "cpu"
    model = accelerate.dispatch_model(
        model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
    )
    found = measure_profile(model, prompts, H.KeyNorm(), levels=LEVELS, progress=False)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("measure", ["attention_mass", "divergence"])
def test_the_model_is_left_offloaded_and_trainable(measure, model_of, prompts):
    model = accelerate.cpu_offload(model_of("LlamaForCausalLM"))
    measure_profile(model, prompts, H.KeyNorm(), levels=LEVELS, measure=measure, progress=False)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_the_output_weight_is_read_where_it_is(family_model):
    heads = family_model.config.num_attention_heads
    expected = [
        output_weight(module, heads).clone() for _, module in attention_modules(family_model)
    ]
    accelerate.cpu_offload(family_model)
    for (_, module), weight in zip(attention_modules(family_model), expected, strict=True):
        torch.testing.assert_close(output_weight(module, heads), weight, atol=1e-6, rtol=1e-6)
    assert geometry_of(family_model).layers == len(expected)
