"""All that is done to a budgeted cache in one life of the soak, in random order."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from benchmarks.runtime.soak_branch import Branch
from benchmarks.runtime.soak_dense import LONGEST, VOCABULARY, WINDOW, Dense
from benchmarks.runtime.soak_life import CONTEXT, LONGEST_TURN, Life, random_plans
from kvbudget.allocator import Plan
from kvbudget.runtime import budgeted, geometry_of

MOST_BRANCHES = 3


def live(
    model: Qwen2ForCausalLM,
    dense: Dense,
    life: Life,
    steps: int,
    progress: Callable[[Life], None] = lambda life: None,
) -> None:
    """Lead a life until so many tokens have been decoded one at a time.

    Args:
        model: The model.
        dense: Its oracle.
        life: Where everything is noted.
        steps: Tokens.
        progress: Called after every operation.

    Raises:
        SoakFault: The cache did something that it must not.
    """
    random = np.random.default_rng([life.seed, life.number])
    plans = random_plans(geometry_of(model), life.rows, random)
    with budgeted(model, plans[0], life.heuristic) as cache:
        chosen = Operations(Branch(model, dense, cache, life.worst), plans, life, random, steps)
        try:
            while life.steps < steps:
                chosen.something()
                progress(life)
        except Exception as error:
            raise life.fault(error) from error


class Operations:
    """Chooses what is done next, and does it."""

    def __init__(
        self,
        branch: Branch,
        plans: list[Plan],
        life: Life,
        random: np.random.Generator,
        steps: int,
    ) -> None:
        self._branch, self._others = branch, list[Branch]()
        self._plans, self._life, self._random, self._steps = plans, life, random, steps
        likely: dict[Callable[[], None], float] = {
            self._decode: 5,
            self._draft: 2,
            self._turn: 1,
            self._chunked_turn: 0.7,
            self._roll_back: 1,
            self._start_anew: 0.7,
            self._fork: 0.8,
            self._change_branch: 1,
            self._rebudget: 1.2,
            self._reload: 0.6,
            self._rows: 1.5 if life.rows > 1 else 0,
        }
        self._ways = list(likely)
        self._chances = np.array(list(likely.values())) / sum(likely.values())

    def something(self) -> None:
        """Do one thing."""
        memory = self._branch.memory
        if memory.columns == 0 or memory.columns >= CONTEXT:
            self._start_anew()
        else:
            self._ways[self._random.choice(len(self._ways), p=self._chances)]()

    def _decode(self) -> None:
        wanted = min(self._below(1, 17), self._steps - self._life.steps)
        self._life.note("decode", str(wanted))
        for _ in range(min(wanted, LONGEST - self._branch.memory.columns)):
            self._read(1)
            self._life.steps += 1

    def _draft(self) -> None:
        """A guess of a few tokens, of which some are taken back."""
        drafted = self._below(2, 9)
        wrong = self._below(0, drafted + 1)
        self._life.note("draft", f"{drafted}, taken back {wrong}")
        self._read(drafted)
        self._branch.crop(wrong)

    def _turn(self) -> None:
        new = self._below(5, LONGEST_TURN + 1)
        self._life.note("turn", str(new))
        self._read(new)

    def _chunked_turn(self) -> None:
        new, chunk = self._below(10, LONGEST_TURN + 1), self._below(2, 17)
        self._life.note("chunked turn", f"{new} by {chunk}")
        self._read_in_chunks(new, chunk)

    def _roll_back(self) -> None:
        removed = min(self._below(0, 2 * WINDOW), self._branch.memory.columns - 1)
        # a token that is no padding stays in every row
        removed = min(removed, self._branch.memory.columns - self._most_padding() - 1)
        self._life.note("rollback", str(removed))
        self._branch.crop(removed)

    def _start_anew(self) -> None:
        new = self._below(1, int(self._random.choice([6, 40, 150, 300])))
        rows = self._below(1, self._life.rows + 1)
        padding = torch.zeros(rows, dtype=torch.long)
        if rows > 1 and self._maybe():
            padding = torch.tensor(self._random.integers(0, min(new, 30), rows))
        whole = self._maybe()
        first = new if whole else self._below(int(padding.max()) + 1, new + 1)
        chunk = self._below(2, 40)
        way = "all of it" if whole else f"{first}, then by {chunk}"
        self._forget_everything()
        self._life.note("new prompt", f"{new}, {way}, padding {padding.tolist()}")
        self._branch.begin(padding)
        self._read(first)
        self._read_in_chunks(new - first, chunk)

    def _forget_everything(self) -> None:
        if self._maybe():
            self._life.note("reset")
            self._branch.cache.reset()
        else:
            self._life.note("rollback of everything")
            self._branch.crop(self._branch.memory.columns)
        self._branch.begin(torch.zeros(1, dtype=torch.long))
        if self._maybe():
            self._rebudget()

    def _fork(self) -> None:
        """Copy the cache, and go on with either."""
        self._life.note("fork")
        other = self._branch.copied()
        if self._maybe():
            self._branch, other = other, self._branch
        self._branch.check_unchanged()
        self._others = [other, *self._others][: MOST_BRANCHES - 1]

    def _change_branch(self) -> None:
        """Go on with another copy, which nothing may have touched since."""
        if not self._others:
            return
        number = self._below(0, len(self._others))
        self._life.note("change branch")
        self._branch.leave()
        self._branch, self._others[number] = self._others[number], self._branch
        self._branch.check_unchanged()

    def _rebudget(self) -> None:
        number = self._below(0, len(self._plans))
        plan = self._plans[number]
        smaller = plan.budget_bytes <= self._branch.plan.budget_bytes
        self._life.note("shrink" if smaller else "grow", f"to plan {number}")
        self._branch.go_over_to(plan)

    def _reload(self) -> None:
        self._life.note("save and load")
        self._branch.reload()

    def _rows(self) -> None:
        """Select, reorder or repeat rows, inside the plan's batch size."""
        rows = self._branch.memory.rows
        way = str(self._random.choice(["select", "reorder", "repeat"]))
        if way == "repeat":
            repeats = self._below(1, self._life.rows // rows + 1)
            chosen, method = np.arange(rows).repeat(repeats), "batch_repeat_interleave"
        elif way == "reorder":
            chosen, method = self._random.integers(0, rows, rows), "reorder_cache"
        else:
            wanted = self._below(1, self._life.rows + 1)
            chosen, method = self._random.integers(0, rows, wanted), "batch_select_indices"
        self._life.note(f"{way} rows", str(chosen.tolist()))
        self._branch.select(torch.tensor(chosen), method)

    def _read_in_chunks(self, new: int, chunk: int) -> None:
        for first in range(0, new, chunk):
            self._read(min(chunk, new - first))

    def _read(self, new: int) -> None:
        self._branch.read(self._tokens(new), shows_mask=self._maybe(), inference=self._maybe())

    def _tokens(self, new: int) -> Tensor:
        """Random ones; what stands in the place of padding does not matter."""
        shape = (self._branch.memory.rows, new)
        return torch.tensor(self._random.integers(3, VOCABULARY, shape))

    def _most_padding(self) -> int:
        return int(self._branch.memory.padding.max())

    def _maybe(self) -> bool:
        return bool(self._random.random() < 0.5)

    def _below(self, least: int, end: int) -> int:
        """A number from `least` to below `end`."""
        return int(self._random.integers(least, max(end, least + 1)))
