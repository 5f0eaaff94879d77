"""Record what kvpress scores the tokens of a small random model, for the tests to compare with.

kvpress needs an older transformers than this package, so it runs in an environment of its own:

    python3.11 -m venv kvpress_env
    kvpress_env/bin/pip install torch==2.13.0 transformers==5.2.0 kvpress==0.5.5
    kvpress_env/bin/python benchmarks/peers/record_kvpress_scores.py

It writes ``tests/heuristics/kvpress_scores.safetensors``. The model computes in float64, so that
rounding decides no order.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import kvpress
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache

TARGET = Path(__file__).parents[2] / "tests" / "heuristics" / "kvpress_scores.safetensors"
TOKENS = 192
SINKS, LAG, CHUNK, NARROW_WINDOW = 4, 32, 64, 16
RATIOS = (0.25, 0.5, 0.75)


def random_model() -> transformers.LlamaForCausalLM:
    """Two layers of four query heads on two KV heads, with far from uniform attention."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        attn_implementation="eager",
    )
    model = transformers.LlamaForCausalLM(config).double().eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.25 if "embed" in name else 0.3)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            # one direction that all tokens share, as trained models have it
            parameter.data += 0.3 * torch.randn(len(parameter), 1, dtype=parameter.dtype)
    return model


class Heard:
    """What the second layer's attention is given, and what it computes from that."""

    queries: Tensor
    module: nn.Module
    hidden: Tensor
    attention: Tensor
    position_embeddings: tuple[Tensor, Tensor]

    def attend(self, module, query, key, value, attention_mask, scaling, **_):
        """Attend, as the model's attention function, and remember."""
        self.queries = query
        repeat = query.shape[1] // key.shape[1]
        logits = query @ key.repeat_interleave(repeat, 1).mT * scaling
        later = torch.ones(query.shape[2], key.shape[2]).triu(1).bool()
        self.attention = logits.masked_fill(later, -torch.inf).softmax(-1)
        output = self.attention @ value.repeat_interleave(repeat, 1)
        return output.transpose(1, 2).contiguous(), None

    def hear(self, module, args, kwargs):
        """Remember, as a hook of the attention module."""
        self.module = module
        self.hidden = kwargs["hidden_states"]
        self.position_embeddings = kwargs["position_embeddings"]


def presses() -> dict[str, kvpress.ScorerPress]:
    """Presses by the name of what is recorded."""
    by_name = {
        "expected_attention": kvpress.ExpectedAttentionPress(n_sink=SINKS),
        "expected_attention_mean_only": kvpress.ExpectedAttentionPress(
            n_sink=SINKS, use_covariance=False, epsilon=0.02
        ),
        "key_diff": kvpress.KeyDiffPress(),
        "key_norm": kvpress.KnormPress(),
        "lag_kv": kvpress.LagKVPress(n_sink=SINKS, lag_size=LAG),
        "leverage": kvpress.LeverageScorePress(),
        "non_causal_attention": kvpress.NonCausalAttnPress(chunk_size=CHUNK),
        "observed_attention": kvpress.ObservedAttentionPress(),
        "snap_kv": kvpress.SnapKVPress(),
        "tova": kvpress.TOVAPress(),
    }
    for ratio in RATIOS:
        base = kvpress.SnapKVPress(ratio, window_size=NARROW_WINDOW, kernel_size=1)
        by_name[f"critical_kv_{ratio}"] = kvpress.CriticalKVPress(base)
        by_name[f"streaming_llm_{ratio}"] = kvpress.StreamingLLMPress(ratio, n_sink=SINKS)
    return by_name


@torch.no_grad()
def record() -> dict[str, Tensor]:
    """Queries, keys and values of one layer, and the scores of all presses, float32."""
    model, heard, cache = random_model(), Heard(), DynamicCache()
    module = model.model.layers[1].self_attn
    module.rotary_emb = model.model.rotary_emb  # presses look for it here
    module.register_forward_pre_hook(heard.hear, with_kwargs=True)
    AttentionInterface.register("heard", heard.attend)
    model.config._attn_implementation = "heard"
    model(torch.randint(97, (1, TOKENS)), past_key_values=cache)
    keys, values = cache.layers[1].keys, cache.layers[1].values
    kwargs = {"position_embeddings": heard.position_embeddings}
    tensors = {
        "queries": heard.queries,
        "keys": keys,
        "values": values,
        "output_weight": module.o_proj.weight.T.reshape(4, 16, 32),
        "frequencies": model.model.rotary_emb.inv_freq,
    }
    for name, press in presses().items():
        attention = heard.attention if name == "observed_attention" else None
        scores = press.score(module, heard.hidden, keys, values, attention, kwargs)
        tensors[f"score.{name}"] = scores
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def main() -> None:
    """Record and save, with the versions that were used."""
    made_with = {name: version(name) for name in ("kvpress", "torch", "transformers")}
    tensors = record()
    save_file(tensors, TARGET, metadata=made_with)
    sizes = sum(tensor.numel() * 4 for tensor in tensors.values())
    sys.stdout.write(f"{len(tensors)} tensors, {sizes} bytes, {made_with} -> {TARGET}\n")


if __name__ == "__main__":
    main()
