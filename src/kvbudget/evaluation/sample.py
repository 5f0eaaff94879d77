"""What is asked of a model: a context, and questions about it."""

from collections.abc import Callable
from dataclasses import dataclass

from .scoring import share_found

Score = Callable[[str, tuple[str, ...]], float]


@dataclass(frozen=True, slots=True)
class Form:
    """How answers are given and judged.

    Args:
        score: What an answer is worth, from 0 to 1; takes what was said and the right answers.
        ends_at_line: Whether an answer ends where its line does.
        is_conversation: Whether each question follows the one before and its right answer, instead
            of following the context alone.
        is_text: Whether there is nothing to answer: the text goes on, and what counts is how
            likely the model finds that.
        lead: What stands between the given beginning of an answer and its parts.
        joined_by: What stands between the parts of an answer.
    """

    score: Score = share_found
    ends_at_line: bool = False
    is_conversation: bool = False
    is_text: bool = False
    lead: str = ""
    joined_by: str = ", "

    def written(self, answers: tuple[str, ...]) -> str:
        """The right answer as it would stand behind its given beginning."""
        return self.lead + self.joined_by.join(answers)


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Args:
        text: The question, without what comes between it and the answer.
        answer_prefix: How the answer begins, given to the model.
        answers: The right answer, or the parts that it should hold; of a text how it goes on.
        max_new_tokens: Most tokens to generate; 0 for a text.

    Raises:
        ValueError: There is no answer, an answer is blank, or the tokens are below 0.
    """

    text: str
    answer_prefix: str
    answers: tuple[str, ...]
    max_new_tokens: int

    def __post_init__(self) -> None:
        """Check that there is something to say.

        Raises:
            ValueError: There is no answer, an answer is blank, or the tokens are below 0.
        """
        if not self.answers or not all(map(str.strip, self.answers)):
            raise ValueError(f"`answers` must hold texts, but got {self.answers!r:.60}.")
        if self.max_new_tokens < 0:
            raise ValueError(f"`max_new_tokens` must be at least 0, but got {self.max_new_tokens}.")

    @property
    def right(self) -> str:
        """The right answer in one piece."""
        return ", ".join(self.answers)


@dataclass(frozen=True, slots=True)
class Sample:
    """A context and questions about it.

    Args:
        context: What is read, and cut, before a question is known.
        questions: At least one.
        task: Name of the task.
        seed: What it was drawn with; 0 if it was not drawn.
        form: How answers are given and judged.

    Raises:
        ValueError: There is no question.
    """

    context: str
    questions: tuple[Question, ...]
    task: str
    seed: int = 0
    form: Form = Form()

    def __post_init__(self) -> None:
        """Check that there is something to ask.

        Raises:
            ValueError: There is no question.
        """
        if not self.questions:
            raise ValueError(
                f"A sample must have a question, but that of the task {self.task!r} has none."
            )
