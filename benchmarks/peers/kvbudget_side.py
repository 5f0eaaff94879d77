"""Run this package on the prompts: measure, choose on other prompts, then run everything.

    python -m benchmarks.peers.kvbudget_side FOLDER [--grid]

What is in the journals of the folder is not run again.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from benchmarks.peers.arms import ARMS, EVERYTHING, SOLVED, Arm
from benchmarks.peers.attempt import FULL_CACHE, Contender, Reading, Runner, run_all
from benchmarks.peers.cells import summarise
from benchmarks.peers.findings import Findings
from benchmarks.peers.journal import Journal
from benchmarks.peers.shares import GRID, SHARES, grid_trials
from benchmarks.peers.trial import CHOOSE, CONTEXT_TOKENS, FIT, FUTURE_TOKENS, TEST, read_trials
from kvbudget import (
    Plan,
    Profile,
    Tokens,
    allocate,
    budgeted,
    measure_profile,
    reference_model,
)
from kvbudget.allocator import DEFAULT_LEVELS


@dataclass
class FullCache(Contender):
    """The model with its own cache."""

    model: PreTrainedModel
    name: str = FULL_CACHE

    @contextmanager
    def reading(self, context: Tensor, kept: float) -> Iterator[Reading]:
        """Read, and cut nothing."""
        cache = DynamicCache()
        self.model.model(input_ids=context, past_key_values=cache)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        yield Reading(cache, context.shape[1], held, held)


@dataclass
class Ours(Contender):
    """A plan for each share, made from one profile."""

    model: PreTrainedModel
    arm: Arm
    profile: Profile
    plans: dict[float, Plan] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of the arm."""
        return self.arm.name

    def plan(self, kept: float) -> Plan:
        """A plan for exactly the bytes that a press holds at that share."""
        if kept not in self.plans:
            tokens = Tokens(int(CONTEXT_TOKENS * kept))
            self.plans[kept] = allocate(
                self.profile,
                budget=tokens,
                context_tokens=CONTEXT_TOKENS,
                solver=self.arm.division,
            )
        return self.plans[kept]

    @contextmanager
    def reading(self, context: Tensor, kept: float) -> Iterator[Reading]:
        """Read inside the plan."""
        with budgeted(self.model, self.plan(kept), self.arm.heuristic, self.arm.adapt) as cache:
            self.model(context, past_key_values=cache, logits_to_keep=1)
            held = cache.nbytes()
            yield Reading(cache, context.shape[1], held, held)


@dataclass(frozen=True, slots=True)
class Profiles:
    """Measures what an arm needs, once.

    Args:
        model: The model.
        folder: Keeps profiles, so that a run that was killed goes on.
        prompts: Where the prompts are.
    """

    model: PreTrainedModel
    folder: Path
    prompts: Path

    def of(self, arm: Arm) -> Profile:
        """Read the profile, or measure it first."""
        what = f"{arm.heuristic} {arm.measure} {arm.calibration}"
        what += "" if arm.levels == DEFAULT_LEVELS else f" {arm.levels}"
        path = self.folder / f"{sha256(what.encode()).hexdigest()[:16]}.safetensors"
        if not path.is_file():
            print(f"measure {what}", flush=True)
            self._measure(arm).save(path)
        return Profile.load(path)

    def _measure(self, arm: Arm) -> Profile:
        trials = read_trials(self.prompts, FIT)
        wanted = [t for t in trials if arm.calibration == EVERYTHING or t.kind == "books"]
        return measure_profile(
            self.model,
            [[*trial.context, *trial.future] for trial in wanted],
            arm.heuristic,
            measure=arm.measure,
            levels=arm.levels,
            future_tokens=FUTURE_TOKENS,
            progress=False,
        )


def chosen_anywhere(folder: Path) -> set[str]:
    """Plans that are chosen at some share, with and without a second reading of the prompt."""
    found = Findings(tuple(summarise(folder)[0]))
    return {found.chosen(kept, read_once=once) for kept in SHARES for once in (True, False)}


def main() -> None:
    """Run everything that is not in the journals yet."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--grid", action="store_true", help="needles of solved plans only")
    arguments.add_argument("--first", type=int, default=1000, help="so many prompts of each kind")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    folder, prompts = chosen.folder, chosen.folder / "prompts.jsonl"
    (folder / "profiles").mkdir(exist_ok=True)
    disable_progress_bar()
    model: Any = reference_model()[0]
    profiles = Profiles(model, folder / "profiles", prompts)
    trials = [trial for trial in read_trials(prompts, TEST) if trial.number < chosen.first]
    full = FullCache(model)
    known = Runner(Journal(folder / "chosen_on.jsonl"), full)
    run_all(
        known,
        [Ours(model, arm, profiles.of(arm)) for arm in SOLVED],
        SHARES,
        read_trials(prompts, CHOOSE),
    )
    runner = Runner(Journal(folder / "kvbudget.jsonl"), full)
    if chosen.grid:
        names = chosen_anywhere(folder)
        best = [Ours(model, arm, profiles.of(arm)) for arm in SOLVED if arm.name in names]
        run_all(runner, best, GRID, grid_trials(trials))
        return
    ours = [Ours(model, arm, profiles.of(arm)) for arm in ARMS]
    run_all(runner, ours, SHARES, trials)
    for each in [full, *ours]:
        runner.cost(each, trials[0])


if __name__ == "__main__":
    main()
