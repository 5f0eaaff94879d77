"""Menus of whole layers, in which all caches of a layer hold equally many bytes."""

import heapq
from dataclasses import dataclass, replace

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.layers import units_in_layers
from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Menu:
    """The choices of one layer.

    Args:
        levels: Level of each cache at each choice, int64 [choices, kv_heads].
        cost_bytes: Memory of each choice, int64 [choices], never falling.
        loss: Loss of each choice that memory could remove, [choices], never rising; that of a
            layer with fewer caches counts as if it had as many as the others.
    """

    levels: Ints
    cost_bytes: Ints
    loss: Floats


def layer_menus(problem: Problem) -> list[Menu]:
    """A menu for each layer: every cache at its highest level within the same bytes, [layers].

    A cache whose lowest level needs more than that is at its lowest level.
    """
    heads = units_in_layers(problem).tolist()
    menus, start = [], 0
    for count in heads:
        menu = menu_of(problem, range(start, start + count))
        menus.append(replace(menu, loss=menu.loss * (max(heads) / count)))
        start += count
    return menus


def menu_of(problem: Problem, units: range) -> Menu:
    """The choices of some units that all hold equally many bytes."""
    cost = problem.cost_bytes[units]
    removable = problem.loss[units] - problem.loss[units, -1:]
    equal_bytes = np.unique(cost)
    columns = [
        np.searchsorted(row, np.maximum(equal_bytes, row[0]), side="right") - 1 for row in cost
    ]
    levels: Ints = np.stack(columns, axis=1)
    heads = np.arange(len(units))
    return Menu(levels, cost[heads, levels].sum(axis=1), removable[heads, levels].sum(axis=1))


def improve_worst(menus: list[Menu], left_bytes: int) -> list[int]:
    """Choose from menus so that the largest loss is least, and then the next largest.

    The layer that loses most takes its cheapest choice that loses less, as long as it can be
    paid; then it stays as it is, and the next one follows. Until the first layer stays, every
    layer has its cheapest choice below the largest loss so far, so no other choices could make
    that smaller.

    Args:
        menus: Menu of each layer, [layers].
        left_bytes: Bytes to spend beyond those of the first choices.

    Returns:
        Index of each layer's choice, [layers].
    """
    chosen = [0] * len(menus)
    worst = [(-float(menu.loss[0]), layer) for layer, menu in enumerate(menus)]
    heapq.heapify(worst)
    while worst:
        loss, layer = heapq.heappop(worst)
        menu = menus[layer]
        better = int(np.searchsorted(-menu.loss, loss, side="right"))
        if better == len(menu.loss):
            continue
        price = int(menu.cost_bytes[better] - menu.cost_bytes[chosen[layer]])
        if price <= left_bytes:
            left_bytes -= price
            chosen[layer] = better
            heapq.heappush(worst, (-float(menu.loss[better]), layer))
    return chosen
