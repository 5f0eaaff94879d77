"""Run trials on one cache or another and compare with the full cache."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from kvbudget.trials import Trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(slots=True)
class Tally:
    """What has been seen of one cache so far.

    Args:
        divergence: For each trial, the mean divergence from the full cache, in nats per token.
        answers: For each question, what the model says, as text.
        correct: For each question, whether that is exactly the answer.
        held_bytes: Most bytes the cache has held.
        tokens_per_second: Speed of each generation, prompt not counted.
    """

    divergence: list[float] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    held_bytes: int = 0
    tokens_per_second: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reader:
    """A model with its tokenizer, reading trials.

    Args:
        model: A causal LM in evaluation mode.
        tokenizer: Its tokenizer.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"

    @torch.no_grad()
    def read_context(self, trial: Trial, cache: Any = None) -> Any:
        """Read a context into a cache, the model's own by default, and return the cache."""
        ids = self._tensor(trial.context)
        return self.model(
            ids, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).past_key_values

    @torch.no_grad()
    def predict(self, trial: Trial, cache: Any) -> Tensor:
        """Read the future and return what is expected after each of its tokens.

        Returns:
            Log-probabilities, [future, vocabulary], float32.
        """
        logits: Tensor = self.model(self._tensor(trial.future), past_key_values=cache).logits[0]
        return logits.float().log_softmax(-1)

    @torch.no_grad()
    def generate(self, trial: Trial, cache: Any, new_tokens: int) -> tuple[str, float]:
        """Generate after a context that the cache has read; the text and tokens per second."""
        ids = self._tensor([*trial.context, trial.future[0]])
        start = time.perf_counter()
        output = cast(Any, self.model).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        seconds = time.perf_counter() - start
        new = output[0, ids.shape[1] :]
        return self._decode(new), len(new) / seconds

    def said(self, trial: Trial, expected: Tensor) -> list[tuple[str, bool]]:
        """For each question, what greedy generation would answer and whether it is exact.

        Every answer token is predicted behind the true ones, so the answer is exact just when
        generation would give it; one more digit behind it makes it wrong.
        """
        best = expected.argmax(-1).tolist()
        found = []
        for start, end in trial.answers:
            text = self._decode(best[start - 1 : end - 1])
            behind = self._decode([best[end - 1]]).lstrip()[:1]
            exact = best[start - 1 : end - 1] == trial.future[start:end]
            found.append((text, exact and not behind.isdigit()))
        return found

    def _decode(self, ids: Tensor | list[int]) -> str:
        return str(self.tokenizer.decode(ids))

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([list(ids)], device=self.model.device)


def divergence(full: Tensor, other: Tensor) -> float:
    """Mean Kullback-Leibler divergence of `other` from `full`, in nats per token.

    Args:
        full: Log-probabilities with the full cache, [future, vocabulary].
        other: The same with another cache.
    """
    return float((full.exp() * (full - other)).sum(-1).mean())


def full_cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values in a cache of transformers."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
