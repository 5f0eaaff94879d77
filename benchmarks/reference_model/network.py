"""The reference model written by hand: the Llama shape, about twice as fast to train on a CPU."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class Shape:
    """The model's sizes; the defaults are those of the shipped model."""

    vocabulary: int = 2048
    dim: int = 192
    layers: int = 6
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    hidden: int = 512
    context: int = 2048
    theta: float = 10000.0
    epsilon: float = 1e-6


class Block(nn.Module):
    """One layer: grouped-query attention, then a gated MLP, each behind a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.n1 = nn.RMSNorm(shape.dim, eps=shape.epsilon)
        self.n2 = nn.RMSNorm(shape.dim, eps=shape.epsilon)
        together = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.qkv = nn.Linear(shape.dim, together, bias=False)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.dim, bias=False)
        self.gate_up = nn.Linear(shape.dim, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map the residual stream [batch, tokens, dim] to the next layer's."""
        batch, tokens, _ = x.shape
        s = self.shape
        parts = [s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim]
        q, k, v = (
            part.view(batch, tokens, -1, s.head_dim).transpose(1, 2)
            for part in self.qkv(self.n1(x)).split(parts, -1)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (part.repeat_interleave(s.heads // s.kv_heads, 1) for part in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, -1))
        gate, up = self.gate_up(self.n2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    """Embedding, blocks, norm; the embedding is also the output layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.dim)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.dim, eps=shape.epsilon)
        self.loss = weighted_loss
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, 0, 0.02)
        for block in self.blocks:
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)

    def forward(self, tokens: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Next-token loss in nats: its weighted mean, and each token's; all [batch, tokens]."""
        cos, sin = rotations(self.shape, tokens.shape[1])
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = block(hidden, cos, sin)
        return self.loss(self.norm(hidden), self.embed.weight, targets, weights)


def rotations(shape: Shape, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles, [tokens, head_dim]."""
    frequency = shape.theta ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
    angle = torch.outer(torch.arange(num_tokens), frequency).repeat(1, 2)
    return angle.cos().bfloat16(), angle.sin().bfloat16()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [batch, heads, tokens, head_dim] by their positions."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def weighted_loss(
    hidden: Tensor, embed: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the logits `hidden @ embed.T`: its weighted mean, and each token's."""
    logits = (hidden @ embed.T).float()
    loss = logits.logsumexp(-1) - logits.gather(-1, targets[..., None]).squeeze(-1)
    return (loss * weights).sum() / weights.sum(), loss.detach()


def compile_parts(model: Model) -> None:
    """Compile the blocks and the loss in place; the parameters keep their names."""
    for block in model.blocks:
        block.compile(dynamic=False)
    model.loss = torch.compile(weighted_loss, dynamic=False)


def to_transformers(model: Model) -> "LlamaForCausalLM":
    """The same model as a transformers class, in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    s = model.shape
    config = LlamaConfig(
        vocab_size=s.vocabulary,
        hidden_size=s.dim,
        intermediate_size=s.hidden,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim,
        max_position_embeddings=s.context,
        rms_norm_eps=s.epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": s.theta},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    out = LlamaForCausalLM(config)
    state = {
        "model.embed_tokens.weight": model.embed.weight,
        "lm_head.weight": model.embed.weight,
        "model.norm.weight": model.norm.weight,
    }
    for i, block in enumerate(model.blocks):
        named = zip(_names(i), _matrices(block), strict=True)
        state |= dict(named)
    out.load_state_dict({name: weight.detach().clone() for name, weight in state.items()})
    return out.bfloat16()


def from_transformers(folder: str) -> Model:
    """Read a folder of `to_transformers(...).save_pretrained` back, in float32."""
    from transformers import LlamaForCausalLM

    source = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    state = source.state_dict()
    model = Model(Shape())
    with torch.no_grad():
        model.embed.weight.copy_(state["model.embed_tokens.weight"])
        model.norm.weight.copy_(state["model.norm.weight"])
        for i, block in enumerate(model.blocks):
            for name, weight in zip(_names(i), _matrices(block), strict=True):
                weight.copy_(state[name])
    return model


def _names(layer: int) -> list[str]:
    """Names of one layer's weights in transformers, in the order of `_matrices`."""
    attention = [f"self_attn.{x}_proj" for x in "qkvo"]
    mlp = [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    norms = ["input_layernorm", "post_attention_layernorm"]
    return [f"model.layers.{layer}.{name}.weight" for name in attention + mlp + norms]


def _matrices(block: Block) -> list[Tensor]:
    """Views of one block's weights, cut as transformers keeps them."""
    s = block.shape
    parts = [s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim]
    attention = [*block.qkv.weight.split(parts), block.out.weight]
    mlp = [*block.gate_up.weight.chunk(2), block.down.weight]
    return [*attention, *mlp, block.n1.weight, block.n2.weight]
