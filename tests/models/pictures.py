"""A picture in every row of a prompt, for those models of the zoo that are made to see one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from zoo_fields import PICTURE_ID

FIRST, END = 10, 14  # columns of the picture's tokens
SIDE = 32


def put_in(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """Put picture tokens into a prompt, [rows, columns].

    Returns:
        What else the model gets with the prompt; nothing, and no tokens, if it sees no pictures.
    """
    config: Any = model.config
    if "vision_config" not in config.sub_configs or PICTURE_ID not in _picture_ids(config):
        return {}
    ids[:, FIRST:END] = PICTURE_ID
    seed = torch.Generator().manual_seed(3)
    if "Qwen" in type(model).__name__:
        patches = torch.randn(len(ids) * 16, 3 * 2 * 8 * 8, generator=seed)
        return {
            "pixel_values": patches,
            "image_grid_thw": torch.tensor([[1, 4, 4]] * len(ids)),
            "mm_token_type_ids": (ids == PICTURE_ID).long(),
        }
    pictures = {"pixel_values": torch.randn(len(ids), 3, SIDE, SIDE, generator=seed)}
    if type(model).__name__.startswith("Gemma3"):
        pictures["token_type_ids"] = (ids == PICTURE_ID).long()
    return pictures


def _picture_ids(config: Any) -> set[int | None]:
    names = ("image_token_id", "image_token_index")
    return {getattr(config, name, None) for name in names}
