"""What a prompt's eviction costs in one layer, against reading the prompt through that layer.

The layer has the sizes of an 8-billion-parameter Llama: hidden 4096, 32 heads on 8 KV heads.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from kvbudget.kernels import attention_sums, gather_kept, select_top

from .case import HEAD_DIM, KV_HEADS, SEED, Case
from .clock import Times, race

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 64
"""Newest queries that judge the prompt."""
HIDDEN, INNER = 4096, 14336


class Prompt:
    """Keys, values and queries of one layer whose prompt has been read.

    Args:
        case: How long, how many, and what is kept.
        device: Where.
    """

    def __init__(self, case: Case, device: torch.device) -> None:
        random = partial(torch.randn, dtype=case.dtype, device=device)
        shape = (case.batch, KV_HEADS, case.context_tokens)
        self.keys, self.values = random(*shape, HEAD_DIM), random(*shape, HEAD_DIM)
        window = min(WINDOW, case.context_tokens)
        self.queries = random(case.batch, KV_HEADS * case.group, window, HEAD_DIM)
        columns = torch.arange(case.context_tokens, device=device)
        self.positions, self.columns = columns.expand(shape), columns[-window:]
        self.valid = torch.ones(shape, dtype=torch.bool, device=device)
        lengths = case.lengths()
        self.counts, rows = lengths.to(device), int(lengths.sum())
        self.starts = (lengths.cumsum(0) - lengths).to(device)
        self.out_keys, self.out_values = random(rows, HEAD_DIM), random(rows, HEAD_DIM)
        self.worth = self.score()
        self.keep = self.select()

    def score(self) -> Tensor:
        """Attention that each token gets from the newest queries, [batch, kv_heads, tokens]."""
        return attention_sums(
            *(self.queries, self.keys, self.valid, self.positions, self.columns),
            scaling=HEAD_DIM**-0.5,
        )

    def select(self) -> Tensor:
        """What stays, [batch, kv_heads, tokens], bool."""
        return select_top(self.worth.flatten(0, 1), self.counts).view(self.valid.shape)

    def gather(self) -> None:
        """Put what stays into the cache."""
        gather_kept(
            *(self.keep, self.keys, self.values, self.out_keys, self.out_values, self.starts)
        )


def times(case: Case, device: torch.device, rounds: int) -> dict[str, Times]:
    """Times of the three steps, of an attention over the prompt, and of the whole layer."""
    torch.manual_seed(SEED)
    prompt = Prompt(case, device)
    calls: dict[str, list[Callable[[], object]]] = {
        "scores": [prompt.score],
        "select": [prompt.select],
        "gather": [prompt.gather],
        "prefill of the layer": [_layer(case, device)],
    }
    return race(calls, device, rounds)


def _layer(case: Case, device: torch.device) -> Callable[[], Tensor]:
    """One layer of the model reads the prompt."""
    heads = KV_HEADS * case.group
    config = LlamaConfig(
        hidden_size=heads * HEAD_DIM,
        intermediate_size=heads * HEAD_DIM * INNER // HIDDEN,
        num_attention_heads=heads,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
    )
    config._attn_implementation = "sdpa"
    layer = LlamaDecoderLayer(config, 0).to(device, case.dtype).eval()
    columns = torch.arange(case.context_tokens, device=device)[None]
    shape = (case.batch, case.context_tokens, config.hidden_size)
    hidden = torch.randn(shape, dtype=case.dtype, device=device)
    turn = LlamaRotaryEmbedding(config).to(device)(hidden, columns)
    return partial(layer, hidden, position_embeddings=turn)


def prompts(is_small: bool) -> list[Case]:
    """Prompts to cut, the one of the goal first."""
    if is_small:
        return [Case(96, 2, 1, 0.25, is_even=False, dtype=torch.float32)]
    lengths = (32768, 8192, 131072)
    return [Case(length, 1, 4, 0.25, is_even=False) for length in lengths]
