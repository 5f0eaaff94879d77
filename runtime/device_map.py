"""A model whose layers lie on several devices, as `device_map` spreads them.

The keys and values of a layer are kept where the layer computes them, so every device has a budget
of its own to keep. It is a constraint on the layers that are there:

    import kvbudget as kvb
    from kvbudget.runtime.device_map import device_bytes, device_limits

    limits = device_limits(model, {"cuda:0": "4GiB", "cuda:1": "8GiB"})
    plan = kvb.allocate(profile, budget="12GiB", context_tokens=32_768, constraints=limits)
    device_bytes(model, plan)  # {device(type='cuda', index=0): 4294901760, ...}
"""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from kvbudget.allocator import Plan
from kvbudget.allocator.budget import Budget
from kvbudget.allocator.constraints import ByteLimit

from .anatomy import anatomy_of


def layer_devices(model: PreTrainedModel) -> tuple[torch.device, ...]:
    """Where each layer that keeps keys and values will keep them.

    Weights may lie elsewhere, in memory or on disk, and come only while they work.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly; says which and why.
    """
    return tuple(layer.device for layer in anatomy_of(model).layers)


def device_limits(model: PreTrainedModel, budgets: Mapping[str, Budget]) -> tuple[ByteLimit, ...]:
    """A limit on the caches of each device, for `allocate`.

    Args:
        model: A causal LM, spread over devices as it will run.
        budgets: Bytes for the caches of a device, by its name, such as ``"cuda:0"``; a share is one
            of the full cache of the layers there. A device that is left out has no limit.

    Returns:
        One for each device, in the order of `budgets`.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly; says which and why.
        TypeError: The budgets are no mapping.
        ValueError: No layer keeps its keys and values on one of the devices, or a budget cannot be
            read.
    """
    if not isinstance(budgets, Mapping):
        raise TypeError(
            f"`budgets` must be a dict from device to budget, but got {budgets!r:.40}. "
            f'Write it as {{"cuda:0": "4GiB"}}.'
        )
    devices = [str(device) for device in layer_devices(model)]
    for name in budgets:
        if name not in devices:
            raise ValueError(
                f"`budgets` must name devices where keys and values are kept, which are "
                f"{', '.join(sorted(set(devices)))}, but got {name!r:.40}."
            )
    return tuple(
        ByteLimit(budget, layers=tuple(at for at, here in enumerate(devices) if here == name))
        for name, budget in budgets.items()
    )


def device_bytes(model: PreTrainedModel, plan: Plan) -> dict[torch.device, int]:
    """Bytes that the caches of each device need when all of them are full.

    Args:
        model: A causal LM, spread over devices as it will run.
        plan: Capacities made for this model.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly; says which and why.
        TypeError: What should be a plan is none.
        ValueError: The plan has another number of layers.
    """
    if not isinstance(plan, Plan):
        raise TypeError(
            f"`plan` must be a Plan, but got a {type(plan).__name__}. Make one with allocate."
        )
    layer_bytes = (plan.capacity_tokens * plan.geometry.token_bytes).sum(1) * plan.batch_size
    found: dict[torch.device, int] = {}
    for device, needed in zip(layer_devices(model), layer_bytes.tolist(), strict=True):
        found[device] = found.get(device, 0) + needed
    return found
