"""A model as lm-evaluation-harness wants it; needs that to be installed."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from tqdm import tqdm

from .caches import CacheKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BLOCK_TOKENS = 64
Request = tuple[tuple[str, str] | None, list[int], list[int]]


class HarnessLM(TemplateLM):  # type: ignore[misc]
    """A model that scores and generates with caches of one kind.

    Args:
        model: A causal LM.
        tokenizer: Its tokenizer.
        kind: The caches.
        most_tokens: Longest text to read; None for what the model reads.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        kind: CacheKind,
        most_tokens: int | None,
    ) -> None:
        super().__init__()
        plain = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
        self.most_tokens = min(plain.max_length, most_tokens or plain.max_length)
        self.plain = HFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=self.most_tokens
        )
        self.model, self.tokenizer, self.kind = model, tokenizer, kind
        self._device = self.plain.device

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        token: int = self.plain.eot_token_id
        return token

    @property
    def prefix_token_id(self) -> int:
        """The token that stands where there is no context."""
        token: int = self.plain.prefix_token_id
        return token

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer, so that requests are not mixed up with those of another."""
        name: str = self.plain.tokenizer_name
        return name

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Text to token ids."""
        ids: list[int] = self.plain.tok_encode(
            string, add_special_tokens=add_special_tokens, **kwargs
        )
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as one text."""
        text: str = self.plain.apply_chat_template(chat_history, add_generation_prompt)
        return text

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts that the harness generates, each in an empty cache of the kind."""
        with self.kind.opened(self.model):
            said: list[str] = self.plain.generate_until(requests, disable_tqdm=disable_tqdm)
        return said

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole texts, in windows that do not overlap."""
        found = []
        for request in requests:
            windows = [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.most_tokens,
                    context_len=1,
                )
            ]
            scores = self._loglikelihood_tokens([(None, *each) for each in windows], disable_tqdm)
            found.append(sum(score for score, _ in scores))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of continuations, and whether each token is the likeliest one."""
        found = []
        read: tuple[list[int], Any, Tensor] | None = None
        with self.kind.opened(self.model) as fresh:
            for texts, context, continuation in tqdm(requests, disable=disable_tqdm):
                kept = self._cut(context, continuation)
                if read is None or read[0] != kept:
                    # answers to one question come one after the other: it is read once
                    read = (kept, *self._prefill(kept, fresh()))
                answer = self._score(copy.deepcopy(read[1]), read[2], continuation)
                found.append(answer)
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answer)
        return found

    def _cut(self, context: list[int], continuation: list[int]) -> list[int]:
        """The end of a context that leaves room for what follows it; one token at least."""
        room = max(1, self.most_tokens - len(continuation) + 1)
        return context[-room:]

    def _prefill(self, ids: list[int], cache: Any) -> tuple[Any, Tensor]:
        output = self.model(
            input_ids=self._tensor(ids), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return output.past_key_values, output.logits[0]

    def _score(self, cache: Any, last: Tensor, ids: list[int]) -> tuple[float, bool]:
        """Read a continuation piece by piece, each behind what the cache kept of those before."""
        total, is_greedy = 0.0, True
        for start in range(0, len(ids), BLOCK_TOKENS):
            block = torch.tensor(ids[start : start + BLOCK_TOKENS], device=last.device)
            logits = self.model(
                input_ids=block[None], past_key_values=cache, use_cache=True
            ).logits[0]
            expected = torch.cat([last, logits[:-1]]).float().log_softmax(-1)
            total += float(expected.gather(1, block[:, None]).double().sum())
            is_greedy = is_greedy and bool((expected.argmax(-1) == block).all())
            last = logits[-1:]
        return total, is_greedy

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self.plain.device)
