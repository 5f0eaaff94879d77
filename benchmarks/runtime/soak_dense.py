"""The oracle of the soak: dense attention in double precision over a memory that keeps everything.

The model is a tiny Qwen2 with a full and a sliding layer. Its own modules do all but attention.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

VOCABULARY, WINDOW, LONGEST = 97, 20, 448


def build_model() -> Qwen2ForCausalLM:
    """A random model whose attention is far from uniform, so that eviction shows."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        use_sliding_window=True,
        sliding_window=WINDOW,
        layer_types=["full_attention", "sliding_attention"],
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM._from_config(config, attn_implementation="eager")
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=0.25 if "embed" in name else 0.15)
        elif "bias" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@dataclass(slots=True)
class Memory:
    """Keys and values of all tokens read.

    Args:
        keys: [layers, batch, kv_heads, LONGEST, head_dim], float64, filled up to `columns`.
        values: The same.
        padding: Columns of padding on the left of each row, [batch].
        columns: Columns read.
    """

    keys: Tensor
    values: Tensor
    padding: Tensor
    columns: int = 0

    @property
    def rows(self) -> int:
        """Sequences in the batch."""
        return len(self.padding)

    def real(self, first: int, end: int) -> Tensor:
        """Which of some columns are no padding, [batch, end - first], bool."""
        return torch.arange(first, end) >= self.padding[:, None]

    def copied(self) -> "Memory":
        """The same in memory of its own."""
        return replace(self, keys=self.keys.clone(), values=self.values.clone())

    def selected(self, rows: Tensor) -> "Memory":
        """These rows, repeats allowed."""
        keys, values = self.keys[:, rows], self.values[:, rows]
        return Memory(keys, values, self.padding[rows], self.columns)


class Dense:
    """A model in double precision whose attention sees only the columns it is told.

    Args:
        model: The model; it stays as it is.
    """

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        columns = torch.arange(LONGEST)[None]
        # the angles as the model itself has them: in single precision
        cos, sin = model.model.rotary_emb(torch.zeros(1), columns)
        self._cos, self._sin = cos[0].double(), sin[0].double()
        self._model = copy.deepcopy(model).double()
        self._config = model.config

    def memory(self, padding: Tensor) -> Memory:
        """Nothing read yet, for rows that begin with so many columns of padding."""
        config = self._config
        dim = config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, len(padding), config.num_key_value_heads, LONGEST, dim)
        keys, values = torch.zeros(2, *shape, dtype=torch.float64)
        return Memory(keys, values, padding)

    @torch.no_grad()
    def logits(self, memory: Memory, tokens: Tensor, held: Tensor | None) -> Tensor:
        """Read tokens, [batch, new], and return their logits, [batch, new, vocabulary].

        Args:
            memory: What was read before; the tokens are added to it.
            tokens: The next ones.
            held: Earlier columns that each head may see, [layers, batch, kv_heads, LONGEST],
                bool; None for all.
        """
        first, end = memory.columns, memory.columns + tokens.shape[1]
        memory.columns = end
        place = (torch.arange(first, end) - memory.padding[:, None]).clamp_min(0)
        angles = self._cos[place][:, None], self._sin[place][:, None]
        inner = self._model.model
        states = inner.embed_tokens(tokens)
        for index, layer in enumerate(inner.layers):
            allowed = None if held is None else held[index, :, :, :end]
            normed = layer.input_layernorm(states)
            states = states + self._attention(memory, index, normed, angles, allowed)
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        return self._model.lm_head(inner.norm(states))

    def _attention(
        self,
        memory: Memory,
        index: int,
        states: Tensor,
        angles: tuple[Tensor, Tensor],
        allowed: Tensor | None,
    ) -> Tensor:
        module, (batch, new, _) = self._model.model.layers[index].self_attn, states.shape
        end, kv_heads = memory.columns, memory.keys.shape[2]
        queries, keys, values = (
            project(states).view(batch, new, -1, memory.keys.shape[-1]).transpose(1, 2)
            for project in (module.q_proj, module.k_proj, module.v_proj)
        )
        memory.keys[index, :, :, end - new : end] = _rotated(keys, *angles)
        memory.values[index, :, :, end - new : end] = values
        # [batch, kv_heads, group, new, dim]
        queries = _rotated(queries, *angles).unflatten(1, (kv_heads, -1))
        logits = queries @ memory.keys[index, :, :, None, :end].mT * queries.shape[-1] ** -0.5
        seen = _seen(memory, new, self._config.layer_types[index] == "sliding_attention")
        if allowed is not None:
            newest = torch.arange(end) >= end - new
            seen = seen & (allowed | newest)[:, :, None]
        # padding sees nothing, and what it reads does not matter
        weights = logits.masked_fill(~seen[:, :, None], -1e9).softmax(-1)
        mixed = weights @ memory.values[index, :, :, None, :end]
        return module.o_proj(mixed.flatten(1, 2).transpose(1, 2).flatten(2))


def _seen(memory: Memory, new: int, slides: bool) -> Tensor:
    """What the newest queries see of all columns read, [batch, 1, new, columns]."""
    end = memory.columns
    column, query = torch.arange(end), torch.arange(end - new, end)[:, None]
    seen = column <= query
    if slides:
        seen = seen & (column > query - WINDOW)
    return (seen & memory.real(0, end)[:, None])[:, None]


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads rotated by their places, [batch, heads, new, dim]."""
    left, right = heads.chunk(2, -1)
    return heads * cos + torch.cat([-right, left], -1) * sin
