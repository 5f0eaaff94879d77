"""How contexts and questions become token ids."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .sample import Question, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = "a b"
MARK = "\N{SECTION SIGN}" * 12
Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Wording:
    """What stands before a context and between a question and its answer, and who counts tokens.

    Context and question are encoded apart, for the context is read when no question is known.

    Args:
        encode: Text to token ids, without any of the tokenizer's own tokens.
        start: Token ids of the tokenizer's own that a context begins with; where a chat template
            stands before it, that brings them along.
        before: Text that a chat template puts before a context, but not before a text that goes
            on; None without a template.
        between: Text between a question and its answer.
    """

    encode: Encode
    start: tuple[int, ...] = ()
    before: str | None = None
    between: str = "\n"

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase", chat: bool = True) -> "Wording":
        """The wording of a tokenizer: that of its chat template if it has one.

        Args:
            tokenizer: That of the model.
            chat: Whether to use the chat template.

        Raises:
            ValueError: The template does not show what a user says.
        """

        def encode(text: str) -> list[int]:
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids

        start = _start(tokenizer, encode)
        if not chat or tokenizer.chat_template is None:
            return cls(encode, start)
        message = [{"role": "user", "content": MARK}]
        text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        before, mark, between = str(text).partition(MARK)
        if not mark:
            raise ValueError(
                "The tokenizer's chat template must show a user's message, but leaves it out. "
                "Give chat=False, or --no-chat, to do without it."
            )
        return cls(encode, start, before, between)

    def context_ids(self, sample: Sample) -> list[int]:
        """Token ids of a context."""
        if self.before is None or sample.form.is_text:
            return [*self.start, *self.encode(sample.context)]
        return self.encode(self.before + sample.context)

    def question_ids(self, sample: Sample, question: Question) -> list[int]:
        """Token ids of a question, up to where the answer begins; none for a text that goes on."""
        return self.encode(self._asked(sample, question))

    def answer_ids(self, sample: Sample, question: Question) -> list[int]:
        """Token ids of the right answer, as they follow the question's."""
        asked, right = self.question_ids(sample, question), sample.form.written(question.answers)
        whole = self.encode(self._asked(sample, question) + right)
        # the last piece of the question and the first of the answer may be one token together
        return whole[len(asked) :] if whole[: len(asked)] == asked else self.encode(right)

    def length(self, sample: Sample) -> int:
        """Tokens that the longest way through a sample takes: context, questions, answers."""
        asked = [self._turn_length(sample, question) for question in sample.questions]
        turns = sum(asked) if sample.form.is_conversation else max(asked)
        return len(self.context_ids(sample)) + turns

    def _turn_length(self, sample: Sample, question: Question) -> int:
        answer = max(question.max_new_tokens, len(self.answer_ids(sample, question)))
        return len(self.question_ids(sample, question)) + answer

    def _asked(self, sample: Sample, question: Question) -> str:
        if sample.form.is_text:
            return ""
        return question.text + self.between + question.answer_prefix


def _start(tokenizer: "PreTrainedTokenizerBase", encode: Encode) -> tuple[int, ...]:
    """The tokens that a tokenizer puts before a text, without those it may put behind it."""
    plain, whole = encode(PLAIN), list(tokenizer(PLAIN)["input_ids"])
    places = range(len(whole) - len(plain) + 1)
    return tuple(whole[: next((at for at in places if whole[at : at + len(plain)] == plain), 0)])
