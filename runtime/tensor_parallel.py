"""A model whose attention heads are divided over processes, as `tp_plan="auto"` divides them.

    torchrun --nproc-per-node 2 script.py

Each process computes some of the query heads of every layer, and holds the keys and values of
their KV heads only. All of them are given the same plan, which was made for the whole model, and
each takes its part. What stays in a cache is decided where the cache is, and so is when it has to
make room: nothing is sent, and a process with much room need not wait for one with little.

A step takes as long as the process with the most tokens needs, and each has its own memory. A
budget for each is a constraint on its heads; here 4 of 8 KV heads are in each of two processes:

    limits = (kvb.constraints.ByteLimit("4GiB", kv_heads=range(0, 4)),
              kvb.constraints.ByteLimit("4GiB", kv_heads=range(4, 8)))
    plan = kvb.allocate(profile, budget="8GiB", context_tokens=32_768, constraints=limits)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from transformers import PreTrainedModel
from transformers.distributed.tensor_parallel import get_kv_heads_per_rank

from kvbudget.allocator import UnsupportedModel

from .head_split import WHOLE, HeadSplit
from .hf import Sighting


def check_divisible(model: PreTrainedModel) -> None:
    """Refuse a model that has been divided where its KV heads cannot be.

    Raises:
        UnsupportedModel: Transformers could not run it either.
    """
    processes = model.tp_size or 1
    if processes == 1:
        return
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None)
    if not isinstance(heads, int):
        return
    if get_kv_heads_per_rank(model.tp_plan, heads, processes) is None:
        raise UnsupportedModel(
            f"{type(model).__name__} has {heads} KV heads, which cannot be divided over "
            f"{processes} processes. Load it with fewer of them, or with device_map."
        )


def head_split(model: PreTrainedModel, seen: Sequence[Sighting]) -> HeadSplit:
    """Find out which KV heads are in this process; all processes have to ask together.

    They compare what they have just computed, so it does not matter how the model was divided.

    Args:
        model: A causal LM.
        seen: What its layers did with their cache when they read the same tokens in all processes.

    Raises:
        UnsupportedModel: The processes would have to agree on the tokens to keep.
    """
    mesh = model._device_mesh
    if mesh is None or mesh["tp"].size() == 1:
        return WHOLE
    parts = mesh["tp"].size()
    mine = torch.stack([_traits(each) for each in seen])
    found = [torch.empty_like(mine) for _ in range(parts)]
    distributed.all_gather(found, mine, group=mesh["tp"].get_group())
    keys, queries = torch.stack(found).cpu().unbind(2)  # [parts, layers, traits]
    if _all_alike(keys) and _all_alike(queries):
        return WHOLE
    heads = keys[..., 0]
    if bool((heads != heads[0]).any()) or _any_alike(keys):
        _refuse(model, parts, "processes share KV heads")
    if any(each.is_rewritten for each in seen):
        _refuse(model, parts, "all heads of a layer have to hold the same tokens")
    return HeadSplit(mesh["tp"].get_local_rank(), parts)


def _traits(seen: Sighting) -> Tensor:
    """What tells other heads from the same ones, [keys and queries, traits], float64."""
    assert seen.keys is not None
    assert seen.call is not None
    return torch.stack(
        [
            torch.stack([each.new_tensor(each.shape[1]).double(), each.sum(), each.square().sum()])
            for each in (seen.keys.double(), seen.call.queries.double())
        ]
    )


def _all_alike(traits: Tensor) -> bool:
    """Whether all parts of [parts, layers, traits] are equal, up to rounding."""
    return bool(torch.isclose(traits, traits[:1], rtol=1e-4).all())


def _any_alike(traits: Tensor) -> bool:
    """Whether any two parts of [parts, layers, traits] are equal in any layer."""
    parts, layers, _ = traits.shape
    pairs = torch.isclose(traits[:, None], traits[None], rtol=1e-4).all(-1)
    return int(pairs.sum()) > parts * layers  # each is equal to itself


def _refuse(model: PreTrainedModel, parts: int, reason: str) -> None:
    raise UnsupportedModel(
        f"{type(model).__name__} is divided over {parts} processes, which would have to agree on "
        f"the tokens to keep, because {reason}. Load it with fewer processes, or with device_map."
    )


def refuse_divided(model: PreTrainedModel, what: str) -> None:
    """Refuse to do something that needs a whole model in each process.

    Args:
        model: A causal LM.
        what: Who needs it.

    Raises:
        UnsupportedModel: The model is divided over several processes.
    """
    parts = max(model.tp_size or 1, model.fsdp_size or 1)
    if parts > 1:
        raise UnsupportedModel(
            f"{what} needs a whole model in each process, but this one is split over {parts} of "
            f"them. Load it without tp_plan or sharding."
        )
