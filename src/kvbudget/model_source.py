"""A model and its tokenizer from a folder, a name on the Hugging Face hub, or the package."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_model(source: str | None) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a model, onto the GPU if there is one, and its tokenizer.

    Args:
        source: A folder that `save_pretrained` made, or a name on the hub; None for the reference
            model that is shipped in the package.

    Raises:
        ValueError: Nothing there is a causal language model with a tokenizer.
        UnsupportedModel: The model's caches cannot be cut exactly.
    """
    import torch

    from kvbudget.reference import reference_model
    from kvbudget.runtime import geometry_of

    _quieten()
    if source is None:
        # so small a model loses more by threads waiting for one another than it gains by them
        torch.set_num_threads(1)
        model, tokenizer = reference_model()
    else:
        _check_folder(source)
        model = _load_weights(source)
        geometry_of(model)  # refuses what cannot be served before anything else is asked for
        tokenizer = _load_tokenizer(source)
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu")
    return model.eval(), tokenizer


def model_name(source: str | None) -> str:
    """How a model is called in messages."""
    return "the reference model" if source is None else source


def check_model_given(source: str | None, made_for: str, what: str) -> None:
    """Refuse to run the shipped model where another one was meant and not named.

    Args:
        source: What was given for a model; None runs the shipped one.
        made_for: The model's name in the plan or profile; empty if it has none.
        what: "plan" or "profile".

    Raises:
        ValueError: Names the model to give.
    """
    if source is None and made_for not in ("", model_name(None)):
        raise ValueError(
            f"The {what} was made for {made_for}, but without `--model` the shipped model runs. "
            f"Add --model {made_for}."
        )


def _check_folder(source: str) -> None:
    place = Path(source)
    looks_like_path = source.startswith((".", "~", os.sep)) or source.count("/") != 1
    if place.is_dir():
        if not (place / "config.json").is_file():
            raise ValueError(f"{source} is not a model's folder: it holds no config.json.")
    elif place.exists():
        raise ValueError(f"`--model` must name a model's folder, but {source} is a file.")
    elif looks_like_path and ("/" in source or os.sep in source):
        raise ValueError(f"There is no folder {source}. Give a folder, or a model's name.")


def _load_weights(source: str) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            source, dtype="auto", trust_remote_code=False, low_cpu_mem_usage=True
        )
    except Exception as error:
        raise ValueError(
            f"{source} could not be loaded as a causal language model: {_first_line(error)} "
            f"Give a folder that save_pretrained made, or a model's name on the Hugging Face hub."
        ) from error


def _load_tokenizer(source: str) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    message = (
        f"{source} holds a model, but no tokenizer that could be loaded. "
        f"Save one there with tokenizer.save_pretrained."
    )
    place = Path(source)
    # without any of these files transformers may make up an empty tokenizer
    if place.is_dir() and not any((place / name).is_file() for name in _TOKENIZER_FILES):
        raise ValueError(message)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise ValueError(message) from error


def check_length(model: "PreTrainedModel", num_tokens: int) -> None:
    """Refuse more tokens than the model has positions for.

    Raises:
        ValueError: Says how many there are.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and num_tokens > positions:
        raise ValueError(
            f"The model reads at most {positions} tokens, but {num_tokens} were asked for. "
            f"Ask for a shorter context or fewer new tokens."
        )


def _first_line(error: Exception) -> str:
    """The first line of an error's message, as a sentence."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip() if lines else type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _quieten() -> None:
    """Keep the loading bars and remarks of transformers off the screen."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
