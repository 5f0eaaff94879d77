"""Tiny problems that catch solvers out, each small enough to try every plan."""

from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import ArrayLike

from kvbudget.allocator import Problem, running_minimum
from kvbudget.allocator.arrays import Floats, Ints

from .coupled import coupled_problems, profile_problems
from .oracle import least_loss

HUGE = 2**60
SCALES = (1.0, 0.1, 1e-9, 1e6)
MOST_PRINTED = 50
"""Numbers of an array that a message may hold."""


@dataclass(frozen=True, eq=False)
class Example:
    """A problem with a name.

    Args:
        name: What is special about it.
        problem: The problem.
    """

    name: str
    problem: Problem

    @cached_property
    def least_loss(self) -> float:
        """Loss of the best plan, found by trying every one; infinite if there is none."""
        return least_loss(self.problem)

    def __str__(self) -> str:
        """The name, and the arrays as they can be typed in again unless they are large."""
        loss, cost = self.problem.loss, self.problem.cost_bytes
        if loss.size > MOST_PRINTED:
            return f"{self.name}: {loss.shape[0]} units with {loss.shape[1]} levels"
        limits = ", ".join(map(str, self.problem.constraints))
        arrays = f"{loss.tolist()}, {cost.tolist()}, {self.problem.budget_bytes}"
        return f"{self.name}: Problem({arrays}{', ' * bool(limits)}{limits})"


@cache
def solver_examples(count: int) -> tuple[Example, ...]:
    """Every problem that has a name, and so many random ones, which are always the same.

    Args:
        count: Number of random problems.
    """
    named = {**plain_problems(), **profile_problems(), **coupled_problems()}
    examples = [Example(name, problem) for name, problem in named.items()]
    examples += [Example(f"random {seed}", random_problem(seed)) for seed in range(count)]
    return tuple(examples)


def plain_problems() -> dict[str, Problem]:
    """Problems without further limits, by name."""
    twins = knapsack([[4.0, 1.0, 0.0]] * 3, [[1, 3, 6]] * 3, 8)
    inf = np.inf
    return {
        "one level": knapsack([[2.0], [3.0]], [[4], [5]], 9),
        "one unit": knapsack([[5.0, 3.0, 1.0]], [[1, 2, 3]], 2),
        "one unit with one level": knapsack([[1.0]], [[7]], 7),
        "units that tie": twins,
        "a budget of exactly the lowest levels": replace(twins, budget_bytes=3),
        "a budget one byte below the lowest levels": replace(twins, budget_bytes=2),
        "a budget one byte below everything": replace(twins, budget_bytes=17),
        "a budget above everything": replace(twins, budget_bytes=10**15),
        "a late drop": knapsack([[9.0, 9.0, 0.0], [5.0, 4.0, 3.0]], [[0, 4, 5], [0, 4, 9]], 9),
        "a free step": knapsack([[9.0, 5.0, 1.0], [8.0, 8.0, 2.0]], [[3, 3, 3], [2, 2, 4]], 6),
        "levels of equal cost": knapsack([[9.0, 5.0, 1.0], [4.0, 4.0, 2.0]], [[3] * 3, [2] * 3], 5),
        "no cost and no budget": knapsack([[9.0, 1.0], [4.0, 0.0]], np.zeros((2, 2)), 0),
        "no loss": knapsack(np.zeros((3, 2)), [[1, 5]] * 3, 9),
        "one loss everywhere": knapsack(np.full((3, 3), 2.5), [[1, 5, 9]] * 3, 19),
        "losses below zero": knapsack([[-1.0, -2.0, -9.0], [3.0, 0.0, -4.0]], [[1, 4, 6]] * 2, 9),
        "infinite losses": knapsack([[inf, 3.0, 1.0], [5.0, 4.0, 0.0]], [[1, 4, 6]] * 2, 10),
        "only the highest level is finite": knapsack([[inf, inf, 1.0]] * 2, [[1, 2, 3]] * 2, 6),
        "infinite losses and too little": knapsack([[inf, 1.0]] * 2, [[1, 3]] * 2, 5),
        "a byte that floats cannot see": knapsack(
            [[1.0, 0.0]] * 2, [[HUGE, HUGE + 1]] * 2, 2 * HUGE + 1
        ),
        "costs near 2**62": knapsack(
            [[9.0, 2.0, 0.0], [9.0, 3.0, 1.0]], [[1, HUGE + 1, 2 * HUGE]] * 2, 2 * HUGE + 1
        ),
    }


def knapsack(loss: ArrayLike, cost_bytes: ArrayLike, budget_bytes: int) -> Problem:
    """A problem from nested lists."""
    return Problem(
        np.asarray(loss, dtype=np.float64), np.asarray(cost_bytes, dtype=np.int64), budget_bytes
    )


def larger_problem() -> Problem:
    """Sixty units with twelve levels each: too many plans to try."""
    rng = np.random.default_rng(7)
    cost = np.cumsum(rng.integers(1, 10**6, (60, 12)), axis=1)
    loss = np.sort(rng.exponential(size=(60, 12)), axis=1)[:, ::-1]
    return Problem(loss, cost, int(cost.sum() // 12))


def random_problem(seed: int) -> Problem:
    """A problem of at most 256 plans; a budget that nothing fits comes up too.

    The seed decides everything: whether losses tie, jump, turn negative or infinite, and whether
    costs are equal, zero or huge.
    """
    rng = np.random.default_rng(seed)
    units, levels = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    cost = np.cumsum(rng.integers(0, (10, 3, 1000)[seed % 3], (units, levels)), axis=1)
    if seed % 5 == 4:
        cost = cost + rng.integers(0, HUGE // 4, (units, 1))
    loss = random_losses(rng, seed, (units, levels))
    return Problem(loss, cost, random_budget(rng, cost))


def random_losses(rng: np.random.Generator, seed: int, shape: tuple[int, int]) -> Floats:
    """Losses that never rise, [units, levels]."""
    whole = rng.integers(0, 10, shape)
    kinds: tuple[Floats, ...] = (
        whole.astype(np.float64),
        rng.exponential(size=shape),
        rng.choice(np.array([0.0, 7.0]), shape),
    )
    loss = running_minimum(kinds[seed % 3] * SCALES[seed % 4])
    if seed % 4 == 3:
        loss = loss - loss.mean()
    if seed % 7 == 6:
        loss[:, :-1] = np.where(np.arange(shape[1] - 1) < rng.integers(0, 3), np.inf, loss[:, :-1])
    return loss


def random_budget(rng: np.random.Generator, cost: Ints) -> int:
    """From one byte below the lowest levels to one above everything, often exactly a plan's."""
    low, high = sum(cost[:, 0].tolist()), sum(cost[:, -1].tolist())
    chosen = cost[np.arange(len(cost)), rng.integers(0, cost.shape[1], len(cost))]
    exact = sum(chosen.tolist())
    anywhere = int(rng.integers(low, high + 2))
    choices = (exact, max(exact - 1, 0), anywhere, max(low - 1, 0))
    return choices[int(rng.choice(4, p=(0.35, 0.25, 0.35, 0.05)))]
