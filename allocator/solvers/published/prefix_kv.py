"""The same attention mass in every layer: the worst layer is as good as it can be.

Reference: Wang et al., 2024. https://arxiv.org/abs/2412.03409
"""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.rounding import trim
from kvbudget.allocator.sharing.layer_menus import improve_worst, layer_menus
from kvbudget.allocator.sharing.level_targets import highest_within
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class PrefixKV(Solver):
    """Make the largest loss of a layer as small as the budget allows.

    All layers lose equally much, as nearly as the menus allow:

        minimise    max_l sum_h loss[l, h]
        subject to  all caches of a layer hold equally many bytes

    Loss that no memory removes does not count. Where layers differ in their number of caches, the
    mean stands for the sum. Equal bytes are up to one level of the menu that loses less, and but
    for caches that a smaller level serves as well.

    Where the loss is lost attention mass this is the published rule, one common share of the mass
    for all layers. There is no importance to pass. The common level is found exactly, by always
    improving the layer that loses most. What is left when that layer cannot improve goes to the
    next one, and in the end to single caches. The original searches the level by bisection on a
    profile and scales the result to the budget.

    Reference:
        Wang et al., "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models
        Need for Efficient Generation", 2024. https://arxiv.org/abs/2412.03409
    """

    def choose(self, problem: Problem) -> Choice:
        """Improve the worst layer as long as it can be, then single caches by one step."""
        menus = layer_menus(problem)
        chosen = improve_worst(menus, problem.budget_bytes - problem.floor_bytes)
        levels = np.concatenate([m.levels[c] for m, c in zip(menus, chosen, strict=True)])
        return Choice(improve_once(problem, trim(problem, levels)))


def improve_once(problem: Problem, levels: Ints) -> Ints:
    """Let units that lose most take their next better level if it fits, int64 [units].

    Args:
        problem: The knapsack.
        levels: Levels that fit the budget, int64 [units].
    """
    units = np.arange(len(levels))
    held = problem.cost_bytes[units, levels].tolist()
    left = problem.budget_bytes - sum(held)
    now = problem.loss[units, levels]
    better = (problem.loss < now[:, None]).argmax(axis=1)
    price = (problem.cost_bytes[units, better] - problem.cost_bytes[units, levels]).tolist()
    for unit in np.argsort(problem.loss[:, -1] - now, kind="stable").tolist():
        if better[unit] and price[unit] <= left:
            left -= price[unit]
            held[unit] += price[unit]
    return trim(problem, highest_within(problem.cost_bytes, held))
