"""Tiny random models of every supported family, and dense attention with a mask as the oracle."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedModel,
)
from transformers.masking_utils import sdpa_mask

from kvbudget.allocator import Certificate, Geometry, Plan
from kvbudget.runtime import geometry_of

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 512, "n_inner": 48}
NO_GROUPS = {key: SHAPE[key] for key in SHAPE if key not in ("num_key_value_heads", "head_dim")}
PHI = {key: SHAPE[key] for key in SHAPE if key != "head_dim"}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
SPECIAL = {
    key: SHAPE[key] for key in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
}
WINDOW = 20

CONFIGS: dict[str, tuple[str, dict[str, object]]] = {
    "GPT2LMHeadModel": ("GPT2Config", {**SPECIAL, **SMALL}),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", NO_GROUPS),
    "Gemma2ForCausalLM": (
        "Gemma2Config",
        {**SHAPE, "sliding_window": WINDOW, "attn_logit_softcapping": 2.0},
    ),
    "Gemma3ForCausalLM": (
        "Gemma3TextConfig",
        {
            **SHAPE,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "GptOssForCausalLM": ("GptOssConfig", {**SHAPE, **EXPERTS, "sliding_window": WINDOW}),
    "LlamaForCausalLM": ("LlamaConfig", SHAPE),
    "MistralForCausalLM": ("MistralConfig", {**SHAPE, "sliding_window": WINDOW}),
    "MixtralForCausalLM": ("MixtralConfig", {**SHAPE, **EXPERTS, "sliding_window": None}),
    "OPTForCausalLM": ("OPTConfig", {**NO_GROUPS, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Phi3ForCausalLM": ("Phi3Config", PHI),
    "Qwen2ForCausalLM": ("Qwen2Config", SHAPE),
    "Qwen3ForCausalLM": ("Qwen3Config", SHAPE),
}


def build_model(architecture: str) -> transformers.PreTrainedModel:
    """A random model whose attention is far from uniform, so that eviction shows."""
    config_name, fields = CONFIGS[architecture]
    config = getattr(transformers, config_name)(**fields)
    torch.manual_seed(0)
    model = getattr(transformers, architecture)._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                torch.nn.init.normal_(parameter, std=0.25 if "embed" in name else 0.15)
            elif "sinks" in name:
                torch.nn.init.normal_(parameter)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


@pytest.fixture(params=sorted(CONFIGS))
def family_model(request: pytest.FixtureRequest) -> transformers.PreTrainedModel:
    """A tiny model of each supported family in turn."""
    return build_model(request.param)


@pytest.fixture
def model_of() -> Callable[[str], transformers.PreTrainedModel]:
    """Builds a tiny model of a named architecture."""
    return build_model


@pytest.fixture
def llama(model_of) -> Iterator[transformers.PreTrainedModel]:
    """A model that must be as it was when a test is done with it."""
    model, tokens = model_of("LlamaForCausalLM"), torch.full((1, 30), 5)
    dtype, before = model.dtype, model(tokens).logits
    yield model
    assert model.config._attn_implementation == "eager"
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert model.dtype != dtype or torch.equal(model.eval()(tokens).logits, before)


@pytest.fixture
def plan_for() -> Callable[..., Plan]:
    """Builds a plan from capacities, its budget being what they need."""

    def build(
        geometry: Geometry,
        capacity: np.ndarray,
        context_tokens: int,
        batch_size: int = 1,
        budget_bytes: int | None = None,
    ) -> Plan:
        used = int(capacity.sum()) * geometry.bytes_per_token * batch_size
        return Plan(
            capacity_tokens=capacity,
            context_tokens=context_tokens,
            batch_size=batch_size,
            budget_bytes=budget_bytes or used,
            certificate=Certificate("by hand", "FEASIBLE", 1.0, 0.0, 1.0),
            geometry=geometry,
            model="tiny",
            heuristic="observation_window",
            heuristic_settings=(),
            measure="none",
        )

    return build


@pytest.fixture
def random_capacity() -> Callable[..., np.ndarray]:
    """Uneven capacities, [layers, kv_heads], between `low` and `high` and inside the windows."""

    def draw(geometry: Geometry, low: int, high: int, seed: int = 0) -> np.ndarray:
        shape = (geometry.layers, geometry.kv_heads)
        drawn = np.random.default_rng(seed).integers(low, high, shape)
        reach = np.array([high if window is None else window for window in geometry.windows])
        return np.minimum(drawn, reach[:, None])

    return draw


@pytest.fixture
def small_plan(llama, plan_for, random_capacity):
    geometry = geometry_of(llama)
    return plan_for(geometry, random_capacity(geometry, 8, 20), 40)


@dataclass
class Oracle:
    """Plain eager attention over a cache that keeps everything, with columns masked per head.

    Attributes:
        held: Columns each head may use in the next forward besides the new ones,
            `[layer][row][kv_head]`; empty means all.
    """

    held: list[list[list[Tensor]]] = field(default_factory=list)

    @contextmanager
    def installed(self, model: transformers.PreTrainedModel):
        """Run the model's attention through the oracle."""
        AttentionInterface.register("masked_oracle", self._attend)
        AttentionMaskInterface.register("masked_oracle", sdpa_mask)
        before = model.config._attn_implementation
        model.set_attn_implementation("masked_oracle")
        yield DynamicCache()  # no configuration: sliding layers keep all columns too
        model.set_attn_implementation(before)

    def _attend(
        self, module, query, key, value, attention_mask, scaling=None, softcap=None, s_aux=None, **_
    ):
        batch, heads, new, dim = query.shape
        kv_heads, columns = key.shape[1:3]
        repeat = heads // kv_heads
        logits = query @ key.repeat_interleave(repeat, 1).mT
        logits = logits * (dim**-0.5 if scaling is None else scaling)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        at = torch.arange(columns)
        seen = at <= torch.arange(columns - new, columns)[:, None]
        if attention_mask is not None:  # places of a picture may see each other
            seen = attention_mask
        seen = seen & self._held_mask(module.layer_idx, batch, kv_heads, columns, new, repeat)
        logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
        if s_aux is not None:
            sink = s_aux.view(1, heads, 1, 1).expand(batch, heads, new, 1)
            logits = torch.cat([logits, sink], -1)
        weights = logits.softmax(-1)[..., :columns]
        return (weights @ value.repeat_interleave(repeat, 1)).transpose(1, 2), None

    def _held_mask(self, layer, batch, kv_heads, columns, new, repeat):
        if not self.held:
            return torch.ones(1, 1, 1, columns, dtype=torch.bool)
        allowed = torch.zeros(batch, kv_heads, 1, columns, dtype=torch.bool)
        allowed[..., columns - new :] = True
        for row in range(batch):
            for head in range(kv_heads):
                allowed[row, head, 0, self.held[layer][row][head]] = True
        return allowed.repeat_interleave(repeat, 1)


@pytest.fixture
def oracle() -> Oracle:
    """Dense attention with a mask over evicted columns."""
    return Oracle()


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Each test counts its own graphs."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def plan_of(plan_for, random_capacity) -> Callable[..., Plan]:
    """Builds a plan of uneven capacities for a model, of 40 tokens."""

    def build(model: PreTrainedModel, rows: int = 1, low: int = 8) -> Plan:
        geometry = geometry_of(model)
        return plan_for(geometry, random_capacity(geometry, low, 17), 40, rows)

    return build
