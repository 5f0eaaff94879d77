"""Contexts, and the tokens that ask for what was in them: to measure on, and to test with.

A trial is a context that is cut before anybody knows the question, followed by future tokens. In a
needle trial facts are hidden in prose and the future asks for them one by one; in a text trial
the prose goes on.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbudget.needles import draw_needles, hide

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEEDLES = 6
# joining facts and prose may merge or split tokens at the seams
_SPARE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Trial:
    """A context and its future.

    Args:
        context: Token ids that are read before the cache is cut.
        future: Token ids that follow.
        answers: Where in `future` an answer begins and ends, for each question that fits.
    """

    context: list[int]
    future: list[int]
    answers: tuple[tuple[int, int], ...] = ()

    @property
    def ids(self) -> list[int]:
        """Context and future together."""
        return self.context + self.future


@dataclass(frozen=True, slots=True)
class TrialMaker:
    """Makes trials of one size from consecutive sentences.

    Args:
        sentences: Prose, in order.
        tokenizer: That of the model to be tried.
        context_tokens: Length of every context.
        future_tokens: Length of every future.
    """

    sentences: Sequence[str]
    tokenizer: "PreTrainedTokenizerBase"
    context_tokens: int
    future_tokens: int

    def needles(self, seed: int) -> Trial:
        """Facts hidden in prose, then questions about them."""
        rng = random.Random(f"needles {seed}")
        needles = draw_needles(rng, min(NEEDLES, max(1, self.context_tokens // 50)))
        facts = len(self._encode(" ".join(needle.sentence for needle in needles)))
        prose = self._prose(rng, self.context_tokens - facts + _SPARE_TOKENS)
        cut_off = len(self._encode(" ".join(prose))) + facts - self.context_tokens
        first = self._depth_behind(prose, cut_off + _SPARE_TOKENS)
        depths = [first + (1 - first) * rng.random() for _ in needles]
        context = self._last(self._encode(hide(prose, needles, depths) + "\n"))
        future: list[int] = []
        answers: list[tuple[int, int]] = []
        for needle in needles:
            question = self._encode(needle.question)
            answer = self._encode(needle.question + needle.number)
            start, end = len(future) + _shared(question, answer), len(future) + len(answer)
            future += answer
            answers += [(start, end)] if end < self.future_tokens else []
        future += self._encode("\n" + " ".join(self._prose(rng, self.future_tokens)))
        return Trial(context, future[: self.future_tokens], tuple(answers))

    def text(self, seed: int) -> Trial:
        """Prose that goes on."""
        rng = random.Random(f"text {seed}")
        prose = self._prose(rng, self.context_tokens + self.future_tokens)
        ids = self._encode(" ".join(prose))
        future = ids[-self.future_tokens :]
        return Trial(self._last(ids[: -self.future_tokens]), future)

    def mixed(self, count: int, seed: int) -> list[Trial]:
        """Needle trials and text trials in turn."""
        makers = (self.needles, self.text)
        return [makers[index % 2](seed + index) for index in range(count)]

    def _depth_behind(self, prose: list[str], tokens: int) -> float:
        """Share of the prose's characters in the sentences that hold its first tokens."""
        chars = 0
        for sentence in prose:
            if tokens <= 0:
                break
            tokens -= len(self._encode(sentence))
            chars += len(sentence)
        return chars / sum(map(len, prose))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _last(self, ids: list[int]) -> list[int]:
        """The last tokens of a context, behind what the tokenizer puts before every text."""
        start: list[int] = self.tokenizer("")["input_ids"]
        return start + ids[len(start) - self.context_tokens :]

    def _prose(self, rng: random.Random, tokens: int) -> list[str]:
        """Consecutive sentences, from anywhere, of at least so many tokens when joined."""
        found: list[str] = []
        first, missing = rng.randrange(len(self.sentences)), tokens
        while missing > 0:
            # counted one by one, then joined: a tokenizer may need fewer tokens for the whole
            while missing > 0:
                found.append(self.sentences[(first + len(found)) % len(self.sentences)])
                missing -= max(1, len(self._encode(found[-1])))
            missing = tokens - len(self._encode(" ".join(found)))
        return found


def _shared(one: list[int], other: list[int]) -> int:
    """Tokens that two sequences have in common at their start."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def windows(ids: list[int], length: int, count: int) -> list[list[int]]:
    """Cut windows of `length` tokens out of a text, spread evenly over it.

    Raises:
        ValueError: The text is shorter than one window.
    """
    if len(ids) < length:
        raise ValueError(
            f"The text must have at least {length} tokens for one sample, but has {len(ids)}. "
            f"Give a longer text or a shorter --context."
        )
    used = max(1, min(count, len(ids) // length))
    step = (len(ids) - length) // max(1, used - 1)
    return [ids[index * step : index * step + length] for index in range(used)]
