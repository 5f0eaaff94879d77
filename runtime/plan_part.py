"""The part of a plan that one of several processes is to live within."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbudget.allocator import Geometry, Plan
from kvbudget.allocator.plan_curves import Curves

from .even_share import EvenShare
from .head_split import WHOLE, HeadSplit


def part_of(plan: Plan, split: HeadSplit) -> Plan:
    """This process' part of a plan for the whole model.

    Its budget is what its capacities need and an even part of what none needs, within all limits
    of the plan. The parts of all processes together fit the budget of the plan.
    """
    if split == WHOLE:
        return plan
    geometry = _part_of_geometry(plan.geometry, split)
    capacity = _part_of_grid(plan.capacity_tokens, plan.geometry, split)
    used = int((capacity * geometry.token_bytes).sum()) * plan.batch_size
    alike = EvenShare.of(plan).tokens(1) * int(geometry.token_bytes.sum())
    spare = (plan.budget_bytes - plan.used_bytes) // split.parts
    return replace(
        plan,
        capacity_tokens=capacity,
        geometry=geometry,
        budget_bytes=min(used + spare, max(used, alike)),
        # constraints speak of heads by their numbers in the whole model
        certificate=replace(plan.certificate, constraints=()),
        curves=None if plan.curves is None else _part_of_curves(plan.curves, plan, split),
    )


def _part_of_grid(values: NDArray[Any], geometry: Geometry, split: HeadSplit) -> NDArray[Any]:
    """Ours of one value for each cache of the whole model, [layers, kv_heads, ...]."""
    most = geometry.kv_heads // split.parts
    part = np.zeros_like(values[:, :most])
    for layer, shape in enumerate(geometry.shapes):
        ours = values[layer, split.here(shape.kv_heads)]
        part[layer, : len(ours)] = ours
    return part


def _part_of_curves(curves: Curves, plan: Plan, split: HeadSplit) -> Curves:
    return Curves(curves.kept_fraction, _part_of_grid(curves.loss, plan.geometry, split))


def _part_of_geometry(geometry: Geometry, split: HeadSplit) -> Geometry:
    return Geometry.of_layers(
        geometry.architecture,
        [replace(shape, kv_heads=shape.kv_heads // split.parts) for shape in geometry.shapes],
        geometry.dtype,
        geometry.windows,
    )
