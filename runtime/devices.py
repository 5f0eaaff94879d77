"""Where the parts of a model are."""

import torch
from transformers import PreTrainedModel


def input_device(model: PreTrainedModel) -> torch.device:
    """Where token ids have to be for the model to read them.

    A model whose parts lie on several devices reads where its embedding is. Where the embedding
    is loaded only while it works, the loader moves the ids as well.
    """
    device = next(model.get_input_embeddings().parameters()).device
    return torch.device("cpu") if device.type == "meta" else device
