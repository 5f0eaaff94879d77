"""A model reads a sample into a cache, answers, and says what it makes of the right answers."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvbudget.runtime.devices import input_device

from .caches import CacheKind, Fresh
from .clock import peak_bytes, timed
from .sample import Question, Sample
from .wording import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(slots=True)
class Reading:
    """What came of one sample.

    Args:
        said: What was answered to each question; nothing where the text goes on.
        logits: For each question the logits at the tokens of the right answer, and behind its
            last one, [answer + 1, vocabulary].
        held_bytes: Most bytes that one cache held.
        prefill_seconds: Time of reading the context, each time that was done.
        token_seconds: Time of each generated token.
    """

    said: list[str] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    held_bytes: int = 0
    prefill_seconds: list[float] = field(default_factory=list)
    token_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reader:
    """A model with its tokenizer.

    Args:
        model: A causal LM in evaluation mode.
        tokenizer: Its tokenizer.
        wording: How contexts and questions become tokens.
        question_known: Whether the question is read together with the context, before the cache is
            cut; each question then has a reading of its own, and a conversation its first question.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    wording: Wording
    question_known: bool = False

    @torch.inference_mode(False)
    @torch.no_grad()
    def read(self, sample: Sample, kind: CacheKind) -> Reading:
        """Read a sample and answer its questions."""
        found = Reading()
        with kind.opened(self.model) as fresh:
            for question, cache, last in self._asked(sample, fresh, found):
                found.held_bytes = max(found.held_bytes, kind.held_bytes(cache))
                if not sample.form.is_text:
                    # what is generated must not be there when the right answer is read
                    fork = copy.deepcopy(cache)
                    found.said.append(self._generate(sample, question, fork, last, found))
                    found.held_bytes = max(found.held_bytes, kind.held_bytes(fork))
                answer = self.wording.answer_ids(sample, question)
                found.logits.append(torch.cat([last, self._told(sample, answer, cache)]))
                found.held_bytes = max(found.held_bytes, kind.held_bytes(cache))
        return found

    @torch.inference_mode(False)
    @torch.no_grad()
    def peak_bytes(self, sample: Sample, kind: CacheKind) -> int:
        """Most bytes that live while a context is read, the model's weights not counted."""
        ids = self.longest_ids(sample)
        with kind.opened(self.model) as fresh:
            return peak_bytes(self._devices, lambda: self._prefill(ids, fresh()))

    def longest_ids(self, sample: Sample) -> list[int]:
        """The most that is read at once: the context, and a question that is known."""
        if not self.question_known:
            return self._context_ids(sample, None)
        asked = sample.questions[:1] if sample.form.is_conversation else sample.questions
        return max((self._context_ids(sample, each) for each in asked), key=len)

    def _asked(
        self, sample: Sample, fresh: Fresh, found: Reading
    ) -> Iterator[tuple[Question, Any, Tensor]]:
        """Each question, with a cache that has read all before its answer, and the last logits."""
        first, *others = sample.questions
        if sample.form.is_conversation:
            yield first, *(state := self._begin(sample, first, fresh, found))
            for question in others:
                yield question, *self._ask(sample, question, state)
        elif self.question_known:
            for question in sample.questions:
                yield question, *self._begin(sample, question, fresh, found)
        else:
            read = self._timed_prefill(self._context_ids(sample, None), fresh, found)
            cache, last = read
            for question in sample.questions[:-1]:
                yield question, *self._ask(sample, question, (copy.deepcopy(cache), last))
            yield sample.questions[-1], *self._ask(sample, sample.questions[-1], read)

    def _begin(
        self, sample: Sample, question: Question, fresh: Fresh, found: Reading
    ) -> tuple[Any, Tensor]:
        """A new cache that has read the context and a question."""
        if self.question_known:
            return self._timed_prefill(self._context_ids(sample, question), fresh, found)
        read = self._timed_prefill(self._context_ids(sample, None), fresh, found)
        return self._ask(sample, question, read)

    def _ask(
        self, sample: Sample, question: Question, state: tuple[Any, Tensor]
    ) -> tuple[Any, Tensor]:
        """Let a cache read a question; the logits behind its last token."""
        cache, last = state
        ids = self.wording.question_ids(sample, question)
        return (cache, self._forward(ids, cache)[-1:]) if ids else (cache, last)

    def _timed_prefill(self, ids: list[int], fresh: Fresh, found: Reading) -> tuple[Any, Tensor]:
        empty = fresh()
        read, seconds = timed(self._devices, lambda: self._prefill(ids, empty))
        found.prefill_seconds.append(seconds)
        return read

    def _prefill(self, ids: list[int], cache: Any) -> tuple[Any, Tensor]:
        output = self.model(
            input_ids=self._tensor(ids), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return output.past_key_values, output.logits[0]

    def _generate(
        self, sample: Sample, question: Question, cache: Any, last: Tensor, found: Reading
    ) -> str:
        """Answer greedily; until the line ends, if answers do."""
        new: list[int] = []
        while len(new) < question.max_new_tokens:
            new.append(int(last[-1].argmax()))
            said = str(self.tokenizer.decode(new, skip_special_tokens=True))
            is_over = sample.form.ends_at_line and "\n" in said.lstrip()
            if is_over or new[-1] in self._ends or len(new) == question.max_new_tokens:
                break
            last, seconds = timed(self._devices, lambda: self._forward(new[-1:], cache))
            found.token_seconds.append(seconds)
        return str(self.tokenizer.decode(new, skip_special_tokens=True))

    def _told(self, sample: Sample, answer: list[int], cache: Any) -> Tensor:
        """Let a cache read the right answer; the logits behind each of its tokens.

        It comes token by token, as when it is generated: what is evicted between two of them is
        then missing here, too. A text that goes on is read at once.
        """
        if sample.form.is_text:
            return self._forward(answer, cache)
        return torch.cat([self._forward([token], cache) for token in answer])

    def _forward(self, ids: list[int], cache: Any) -> Tensor:
        logits: Tensor = self.model(
            input_ids=self._tensor(ids), past_key_values=cache, use_cache=True
        ).logits[0]
        return logits

    def _context_ids(self, sample: Sample, question: Question | None) -> list[int]:
        asked = [] if question is None else self.wording.question_ids(sample, question)
        return self.wording.context_ids(sample) + asked

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self._device)

    @property
    def _device(self) -> torch.device:
        return input_device(self.model)

    @property
    def _devices(self) -> set[torch.device]:
        return {weight.device for weight in self.model.parameters()}

    @property
    def _ends(self) -> set[int]:
        """Tokens that end a text."""
        of_model = getattr(self.model.generation_config, "eos_token_id", None)
        several = of_model if isinstance(of_model, list) else [of_model]
        return {token for token in (*several, self.tokenizer.eos_token_id) if token is not None}
