"""How the budget is divided over the devices that hold the layers."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from kvbudget.allocator import Plan
from kvbudget.allocator.geometry import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """The part of the budget that the layers on one device may use.

    Args:
        layers: Which they are, rising.
        key_elements: Elements of their keys, all together.
        value_elements: Elements of their values, all together.
        key_token: Elements of one token's keys in all of their caches.
        value_token: Elements of one token's values in all of their caches.
    """

    layers: tuple[int, ...]
    key_elements: int
    value_elements: int
    key_token: int
    value_token: int

    def even_tokens(self, batch: int) -> int:
        """Tokens per cache that fit if all caches of `batch` rows hold equally many."""
        by_keys = self.key_elements // (self.key_token * batch)
        return min(by_keys, self.value_elements // (self.value_token * batch))

    def holding(self, tokens: int) -> "DeviceShare":
        """The same or a larger one, for so many tokens in every cache of one row."""
        return replace(
            self,
            key_elements=max(self.key_elements, tokens * self.key_token),
            value_elements=max(self.value_elements, tokens * self.value_token),
        )


def divide(
    plan: Plan, devices: Sequence[Hashable] | None = None, even_tokens: int | None = None
) -> tuple[DeviceShare, ...]:
    """Give every device what the plan's capacities need there, and an even part of the rest.

    Args:
        plan: Capacities per layer and KV head.
        devices: Where each layer lies, [layers]; None if all lie together.
        even_tokens: Most tokens that every cache will hold alike; None for any number.

    Returns:
        One share per device, no larger than is of use. Together they fit the budget.

    Raises:
        ValueError: There is not one device for each layer.
    """
    places = [None] * plan.geometry.layers if devices is None else list(devices)
    if len(places) != plan.geometry.layers:
        raise ValueError(
            f"`devices` must name one device for each of {plan.geometry.layers} layers, but got "
            f"{len(places)}."
        )
    groups: dict[Hashable, list[int]] = {}
    for layer, place in enumerate(places):
        groups.setdefault(place, []).append(layer)
    spare = (plan.budget_bytes - plan.used_bytes) // DTYPE_BYTES[plan.geometry.dtype]
    shares = [_share(plan, layers, spare) for layers in groups.values()]
    tightest = min(share.even_tokens(1) for share in shares)
    even = tightest if even_tokens is None else min(tightest, even_tokens)
    planned = [_share(plan, layers, 0) for layers in groups.values()]
    return tuple(share.holding(even) for share in planned)


def _share(plan: Plan, layers: list[int], spare: int) -> DeviceShare:
    """Share of these layers, with their even part of `spare` elements that no capacity needs."""
    shapes, capacity = plan.geometry.shapes, plan.capacity_tokens.sum(1).tolist()
    every_token = sum(shape.kv_heads * shape.token_elements for shape in shapes)
    planned = [(shapes[layer], capacity[layer] * plan.batch_size) for layer in layers]
    key_token = sum(shape.kv_heads * shape.head_dim for shape, _ in planned)
    value_token = sum(shape.kv_heads * shape.value_dim for shape, _ in planned)
    keys = sum(shape.head_dim * rows for shape, rows in planned)
    values = sum(shape.value_dim * rows for shape, rows in planned)
    return DeviceShare(
        layers=tuple(layers),
        key_elements=keys + spare * key_token // every_token,
        value_elements=values + spare * value_token // every_token,
        key_token=key_token,
        value_token=value_token,
    )
