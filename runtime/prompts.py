"""Calibration prompts: texts or token ids in, checked token ids out."""

from collections.abc import Sequence
from operator import index as as_index
from typing import cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

Prompt = str | Sequence[int]

MIN_PROMPT_TOKENS = 32
MOST_FUTURE_TOKENS = 256


def token_ids(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase | None,
    vocabulary: int,
    positions: int | None = None,
) -> list[list[int]]:
    """Turn calibration prompts into token ids.

    Args:
        prompts: Texts, or sequences of token ids.
        tokenizer: Needed for texts.
        vocabulary: Number of tokens the model knows.
        positions: Most tokens the model reads at once; None if it does not say.

    Raises:
        ValueError: There is no prompt, one is too short, or holds a token the model lacks.
        TypeError: A prompt is a text and there is no tokenizer, or it is neither.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not len(prompts):
        raise ValueError(
            f"`prompts` must be a list of at least one prompt, but got {prompts!r:.60}."
        )
    found = [_ids(prompt, tokenizer) for prompt in prompts]
    for index, ids in enumerate(found):
        _check(index, ids, vocabulary)
        if positions is not None and len(ids) > positions:
            raise ValueError(
                f"The model reads at most {positions} tokens, but prompt {index} has {len(ids)}. "
                f"Cut it shorter."
            )
    return found


def prompt_ids(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase | None,
) -> list[list[int]]:
    """Turn calibration prompts into token ids that the model can read; see `token_ids`."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return token_ids(prompts, tokenizer, vocabulary_of(model), positions)


def vocabulary_of(model: PreTrainedModel) -> int:
    """Number of tokens the model knows."""
    return len(model.get_input_embeddings().get_parameter("weight"))


def future_length(ids: list[int], future_tokens: int | None, least: int = 1) -> int:
    """How many of a prompt's last tokens are future, the rest being context.

    Args:
        ids: The prompt.
        future_tokens: What the user wants; a quarter of the prompt, at most 256, by default.
        least: Fewest that will do.

    Raises:
        ValueError: There would be too little future or no context.
    """
    wanted = min(MOST_FUTURE_TOKENS, len(ids) // 4) if future_tokens is None else future_tokens
    if not least <= wanted < len(ids):
        raise ValueError(
            f"`future_tokens` must be at least {least} and leave some context, but got {wanted} "
            f"for a prompt of {len(ids)} tokens."
        )
    return wanted


def _ids(prompt: Prompt, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if isinstance(prompt, int):
        raise TypeError(
            f"`prompts` must be a list of texts or of token lists, but holds the number {prompt}. "
            f"Put one prompt's tokens into a list of their own."
        )
    if not isinstance(prompt, str):
        return _listed(prompt)
    if tokenizer is None:
        raise TypeError(
            "`prompts` must be token ids when there is no tokenizer, but got a text. "
            "Pass tokenizer=."
        )
    return [int(token) for token in tokenizer(prompt)["input_ids"]]


def _listed(prompt: Sequence[int]) -> list[int]:
    # a tokenizer that returns tensors gives one row
    row = prompt[0] if getattr(prompt, "ndim", 1) == 2 and len(prompt) == 1 else prompt
    try:
        return [as_index(token) for token in cast(Sequence[int], row)]
    except TypeError as error:
        raise TypeError(
            f"Every prompt must be a text or one list of token ids, but got a "
            f'{type(prompt).__name__} of other things. Pass tokenizer(text)["input_ids"], or a '
            f"text; of a chat, the one that tokenizer.apply_chat_template returns."
        ) from error


def _check(index: int, ids: list[int], vocabulary: int) -> None:
    if len(ids) < MIN_PROMPT_TOKENS:
        raise ValueError(
            f"Every prompt must have at least {MIN_PROMPT_TOKENS} tokens to be split into context "
            f"and future, but prompt {index} has {len(ids)}."
        )
    if not 0 <= min(ids) <= max(ids) < vocabulary:
        raise ValueError(
            f"The model reads tokens 0..{vocabulary - 1}, but prompt {index} holds tokens "
            f"{min(ids)}..{max(ids)}: it was made with another tokenizer."
        )
