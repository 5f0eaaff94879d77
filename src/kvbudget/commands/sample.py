"""What the commands measure a model on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEAST_CONTEXT = 64
"""Tokens of the shortest context that is measured on."""


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

    def check_length(self, model: "PreTrainedModel") -> None:
        """Refuse contexts that the model has no positions for.

        Raises:
            ValueError: Says which is the longest one that fits.
        """
        positions = getattr(model.config, "max_position_embeddings", None)
        needed = self.context_tokens + self.future_tokens
        if positions is None or needed <= positions:
            return
        # the longest context that fits beside an eighth of it, and beside 32 tokens
        longest = min((8 * positions + 7) // 9, positions - 32)
        raise ValueError(
            f"The model reads at most {positions} tokens, but {needed} were asked for: a context "
            f"and the {self.future_tokens} tokens behind it. "
            + (
                f"The longest `--context` that fits is {longest}."
                if longest >= LEAST_CONTEXT
                else "It is too short to be measured."
            )
        )

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
