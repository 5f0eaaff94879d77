"""The small language model that is shipped in the package."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILES = Path(__file__).parent / "reference_files"


def reference_model() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load the reference model and its tokenizer; needs no network.

    A Llama of 3 M parameters, 6 layers with 4 KV heads each and a context of 2048 tokens, trained
    to find facts in its context. Its weights are kept in bfloat16 and given out in float32, on the
    CPU and in evaluation mode. What it was trained on and can do: `reference_files/README.md`.

    Returns:
        The model and its tokenizer, new objects at every call.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # from_pretrained leaves the model in evaluation mode
    model = AutoModelForCausalLM.from_pretrained(FILES, dtype=torch.float32, local_files_only=True)
    # a plan tells whom it is for by this name, not by a folder of one machine
    model.config.name_or_path = "the reference model"
    tokenizer = AutoTokenizer.from_pretrained(FILES, local_files_only=True)
    return model, tokenizer
