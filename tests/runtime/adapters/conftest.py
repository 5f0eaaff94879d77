"""Tiny models that compute their attention themselves, and their own modules as the oracle."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager

import pytest
import torch
import transformers
from torch import Tensor, nn

SPECIAL = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT = {**SPECIAL, "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 512, "rotary_dim": 8}
BLOOM = {**SPECIAL, "hidden_size": 64, "n_head": 4, "n_layer": 3}
MPT = {**SPECIAL, "d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 512, "use_cache": True}
PLAIN = {
    **SPECIAL,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
FALCON = {**PLAIN, "alibi": False, "multi_query": False, "new_decoder_architecture": False}
LINEAR = {**FALCON, "alibi": True, "parallel_attn": False, "bias": True}
WINDOW = 20

# name: class, configuration, fields, attention implementation
MODELS: dict[str, tuple[str, str, dict[str, object], str]] = {
    "bloom": ("BloomForCausalLM", "BloomConfig", BLOOM, "eager"),
    "bloom with 6 heads": (
        "BloomForCausalLM",
        "BloomConfig",
        {**BLOOM, "hidden_size": 96, "n_head": 6, "apply_residual_connection_post_layernorm": True},
        "eager",
    ),
    "codegen": ("CodeGenForCausalLM", "CodeGenConfig", {**GPT, "n_ctx": 512}, "eager"),
    "falcon": ("FalconForCausalLM", "FalconConfig", {**FALCON, "multi_query": True}, "sdpa"),
    "falcon of many heads": ("FalconForCausalLM", "FalconConfig", FALCON, "eager"),
    "falcon of groups": (
        "FalconForCausalLM",
        "FalconConfig",
        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
        "eager",
    ),
    "falcon with linear biases": ("FalconForCausalLM", "FalconConfig", LINEAR, "sdpa"),
    "falcon with doubled biases": ("FalconForCausalLM", "FalconConfig", LINEAR, "eager"),
    "gpt-j": ("GPTJForCausalLM", "GPTJConfig", GPT, "eager"),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            **SPECIAL,
            "hidden_size": 64,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": WINDOW,
            "max_position_embeddings": 512,
        },
        "eager",
    ),
    "gpt-neox japanese": (
        "GPTNeoXJapaneseForCausalLM",
        "GPTNeoXJapaneseConfig",
        {**PLAIN, "intermediate_multiple_size": 2, "rotary_pct": 0.5},
        "eager",
    ),
    "mpt": ("MptForCausalLM", "MptConfig", MPT, "eager"),
    "mpt, clipped, with 6 heads": (
        "MptForCausalLM",
        "MptConfig",
        {**MPT, "d_model": 96, "n_heads": 6, "attn_config": {"clip_qkv": 1.0}},
        "eager",
    ),
    "xglm": (
        "XGLMForCausalLM",
        "XGLMConfig",
        {**SPECIAL, "d_model": 64, "num_layers": 3, "attention_heads": 4, "ffn_dim": 48},
        "eager",
    ),
}


def build_adapted(name: str) -> transformers.PreTrainedModel:
    """A random model whose attention is far from uniform, so that eviction shows."""
    architecture, config_name, fields, implementation = MODELS[name]
    config = getattr(transformers, config_name)(**fields)
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture)
    model = model_class._from_config(config, attn_implementation=implementation)
    scale = 0.08 if name == "gpt-neo" else 0.15  # its logits are not scaled down
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                torch.nn.init.normal_(parameter, std=scale)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


@pytest.fixture(params=sorted(MODELS))
def adapted_model(request: pytest.FixtureRequest) -> transformers.PreTrainedModel:
    """A tiny model of each kind in turn."""
    return build_adapted(request.param)


@pytest.fixture(params=sorted(name for name in MODELS if "biases" not in name))
def measurable_model(request: pytest.FixtureRequest) -> transformers.PreTrainedModel:
    """Those whose attention adds no rounded biases of its own, which no loss knows of."""
    return build_adapted(request.param)


@pytest.fixture
def adapted() -> Callable[[str], transformers.PreTrainedModel]:
    """Builds a tiny model by its name in `MODELS`."""
    return build_adapted


class OwnAttention:
    """The model's own attention modules, each head run with a mask of its own.

    Nothing of ours takes part: every module runs once per head with that head's mask for all
    heads, and its output projection then gets each head from its own run.
    """

    def __init__(self, module: nn.Module, projection: nn.Module, hidden: Tensor) -> None:
        self.module, self.projection, self.hidden = module, projection, hidden
        # the others that have a mask of truth values say what is seen
        self.hides = type(module).__name__ == "MptAttention"
        self.mixed: list[Tensor] = []
        self.is_final = False

    def __call__(self, _: nn.Module, inputs: tuple, keywords: dict) -> None:
        """Forward pre-hook of the module; its last run follows with what it found."""
        mask, heads = keywords["attention_mask"], self.hidden.shape[1]
        self.mixed, self.is_final = [], False
        for head in range(heads):
            hidden = self.hidden[:, head : head + 1]
            lowest = torch.finfo(mask.dtype).min if mask.is_floating_point() else self.hides
            hidden = hidden.expand(-1, mask.shape[1], -1, -1)
            self.module.forward(
                *inputs, **{**keywords, "attention_mask": mask.masked_fill(hidden, lowest)}
            )
        self.is_final = True

    def project(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        """Forward pre-hook of the output projection."""
        if not self.is_final:
            self.mixed.append(inputs[0])
            return None
        heads = len(self.mixed)
        runs = torch.stack([each.unflatten(-1, (heads, -1)) for each in self.mixed])
        return (torch.stack([runs[head, ..., head, :] for head in range(heads)], -2).flatten(-2),)


@pytest.fixture
def masked() -> Callable[..., object]:
    """Context in which a model's own attention hides columns, per layer [batch, heads, new, all].

    `masked(model, attentions, hidden)` with the attention modules and what each has to hide.
    """

    @contextmanager
    def installed(attentions: list[tuple[nn.Module, nn.Module]], hidden: list[Tensor]):
        with ExitStack() as stack:
            for (module, projection), hides in zip(attentions, hidden, strict=True):
                own = OwnAttention(module, projection, hides)
                hook = module.register_forward_pre_hook(own, with_kwargs=True)
                stack.callback(hook.remove)
                stack.callback(projection.register_forward_pre_hook(own.project).remove)
            yield

    return installed
