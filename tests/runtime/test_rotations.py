"""Rotations read from a model, against what its attention receives."""

from collections.abc import Callable

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from kvbudget.runtime.anatomy import attention_modules
from kvbudget.runtime.rotations import ROTATES_HALVES, layer_rotations

UNROTATED = ("GPT2LMHeadModel", "OPTForCausalLM")
ROTATED = sorted({f"{name}ForCausalLM" for name in ROTATES_HALVES - {"GPT2", "OPT"}})
TOKENS = 40
Pair = tuple[Tensor, Tensor]


def unrotated(module: nn.Module, heard: dict[str, Tensor], heads: int) -> Pair:
    """Queries and keys as the projections gave them, [batch, heads, tokens, head_dim]."""
    if "query_key_value" in heard:
        fused = heard["query_key_value"].unflatten(-1, (heads, -1)).transpose(1, 2)
        queries, keys, _ = fused.chunk(3, dim=-1)
        return queries, keys
    if "qkv_proj" in heard:
        fused = heard["qkv_proj"].unflatten(-1, (-1, module.head_dim)).transpose(1, 2)
        rest = (fused.shape[1] - heads) // 2
        queries, keys, _ = fused.split((heads, rest, rest), dim=1)
        return queries, keys
    last = "norm" if "q_norm" in heard else "proj"
    both = []
    for each in (heard[f"q_{last}"], heard[f"k_{last}"]):
        split = each if each.dim() == 4 else each.unflatten(-1, (-1, module.head_dim))
        both.append(split if split.shape[2] == TOKENS else split.transpose(1, 2))
    return both[0], both[1]


def before_and_after(model: nn.Module) -> list[tuple[Pair, Pair]]:
    """Queries and keys of every layer without their rotation, and as attention receives them."""
    heads = model.config.num_attention_heads
    heard: dict[str, Tensor] = {}
    found: list[tuple[Pair, Pair]] = []

    def attend(module, query, key, value, attention_mask, **_):
        found.append((unrotated(module, heard, heads), (query, key)))
        return query.new_zeros(query.shape[0], TOKENS, heads, value.shape[-1]), None

    def listen(name: str):
        return lambda module, args, output: heard.update({name: output})

    hooks = [
        child.register_forward_hook(listen(name))
        for _, module in attention_modules(model)
        for name, child in module.named_children()
    ]
    AttentionInterface.register("rotation_oracle", attend)
    AttentionMaskInterface.register("rotation_oracle", sdpa_mask)
    model.set_attn_implementation("rotation_oracle")
    with torch.no_grad():
        model(torch.arange(2 * TOKENS).view(2, TOKENS), use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def assert_undone(model: nn.Module) -> None:
    rotations = layer_rotations(model)
    layers = before_and_after(model)
    assert len(rotations) == len(layers) == 3
    columns = torch.arange(TOKENS)
    for rotation, (plain, turned) in zip(rotations, layers, strict=True):
        assert rotation is not None
        for before, after in zip(plain, turned, strict=True):
            assert not torch.allclose(before, after, atol=1e-2)
            torch.testing.assert_close(rotation.undo(after, columns), before, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(rotation.apply(before, columns), after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ROTATED)
def test_what_a_family_rotates_is_turned_back(
    architecture: str, model_of: Callable[[str], transformers.PreTrainedModel]
) -> None:
    assert_undone(model_of(architecture))


@pytest.mark.parametrize("architecture", UNROTATED)
def test_a_family_with_learned_positions_rotates_nothing(
    architecture: str, model_of: Callable[[str], transformers.PreTrainedModel]
) -> None:
    assert layer_rotations(model_of(architecture)) == (None, None, None)


def llama(architecture: str = "LlamaForCausalLM", **rope: object) -> transformers.PreTrainedModel:
    """A random model of three layers with one kind of rotation."""
    config = getattr(transformers, architecture.replace("ForCausalLM", "Config"))(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        rope_parameters={"rope_theta": 10_000.0, **rope},
    )
    torch.manual_seed(0)
    model = getattr(transformers, architecture)._from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_stretched_frequencies_and_their_scaling_are_turned_back(rope: dict[str, object]) -> None:
    model = llama(**rope)
    assert_undone(model)
    scaling = layer_rotations(model)[0].scaling
    assert (scaling != 1.0) == (rope["rope_type"] == "yarn")


def test_a_part_of_every_head_may_stay_unrotated() -> None:
    model = llama("Phi3ForCausalLM", rope_type="default", partial_rotary_factor=0.5)
    assert_undone(model)
    assert len(layer_rotations(model)[0].frequencies) == 4  # of 16 numbers, 8 turn in pairs


def test_sliding_and_full_layers_may_rotate_differently(
    model_of: Callable[[str], transformers.PreTrainedModel],
) -> None:
    sliding, full, other = layer_rotations(model_of("Gemma3ForCausalLM"))
    assert sliding is other
    assert not torch.allclose(sliding.frequencies, full.frequencies)


def test_frequencies_that_change_with_the_length_give_no_rotation() -> None:
    dynamic = llama(rope_type="dynamic", factor=2.0)
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    longrope = llama(
        "Phi3ForCausalLM", rope_type="longrope", original_max_position_embeddings=32, **factors
    )
    assert layer_rotations(dynamic) == layer_rotations(longrope) == (None, None, None)


def test_a_family_whose_layout_was_not_verified_gives_no_rotation() -> None:
    config = transformers.CohereConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    model = transformers.CohereForCausalLM._from_config(config)  # it turns neighbouring numbers
    assert layer_rotations(model) == (None, None)


def test_a_model_in_half_precision_has_the_frequencies_it_computes_with(
    model_of: Callable[[str], transformers.PreTrainedModel],
) -> None:
    model = model_of("LlamaForCausalLM").half()
    frequencies = layer_rotations(model)[0].frequencies
    assert frequencies.dtype == torch.float32
    assert torch.equal(frequencies, model.base_model.rotary_emb.inv_freq.float())
