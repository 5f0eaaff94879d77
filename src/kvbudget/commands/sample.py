"""What the commands measure a model on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Sample:
    """What to measure on.

    Args:
        text: A text like those the model will read; None for built-in prose with facts to find.
        context_tokens: Length of each context.
        count: Number of contexts.
    """

    text: Path | None
    context_tokens: int
    count: int

    @property
    def future_tokens(self) -> int:
        """Tokens behind each context that ask for what was kept."""
        return max(32, self.context_tokens // 8)

    def prompts(self, tokenizer: "PreTrainedTokenizerBase", seed: int) -> list[list[int]]:
        """Token ids of each context and its future.

        Args:
            tokenizer: That of the model.
            seed: Where the built-in prose begins and what is hidden in it; a text of one's own is
                cut evenly, whatever the seed.

        Raises:
            ValueError: The text is shorter than one context and its future.
        """
        from kvbudget.prose import built_in_sentences, read_text
        from kvbudget.trials import TrialMaker, windows

        if self.text is not None:
            ids = tokenizer(read_text(self.text), add_special_tokens=False)["input_ids"]
            return windows(ids, self.context_tokens + self.future_tokens, self.count)
        maker = TrialMaker(built_in_sentences(), tokenizer, self.context_tokens, self.future_tokens)
        return [trial.ids for trial in maker.mixed(self.count, seed)]
