"""One thing that is tried: tokens, a division, and a share that is kept."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvbudget import budgeted
from kvbudget.demo.trying import divergence, full_cache_bytes
from kvbudget.trials import Trial

from .calibration import Calibration
from .divisions import Division
from .kinds import Prompt, mean
from .tokens import Tokens


@dataclass(frozen=True, slots=True)
class Arm:
    """Tokens, a division, and the share of the context's bytes that may be kept.

    Args:
        tokens: Which tokens are kept.
        named: The division's name.
        division: The division.
        kept: Share of the bytes in %; 0 where the division has no budget.
    """

    tokens: Tokens
    named: str
    division: Division
    kept: int

    @property
    def name(self) -> str:
        """How tables and files call it."""
        budget = f", {self.kept} %" if self.kept else ""
        return f"{self.tokens.name}, {self.named}{budget}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one prompt came to.

    Args:
        divergence: Mean divergence from the full cache over the prompt's future, in nats per token.
        right: Questions answered exactly.
        asked: Questions.
        held: Most bytes held from the end of the context on, over those of the whole context.
    """

    divergence: float
    right: int
    asked: int
    held: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What the full cache makes of one trial.

    Args:
        predictions: Log-probabilities, [future, vocabulary].
        right: Questions answered exactly.
        context_bytes: Bytes of the whole context's keys and values.
    """

    predictions: Tensor
    right: int
    context_bytes: int


def expect(known: Calibration, prompt: Prompt) -> tuple[Expected, ...]:
    """Run a prompt with the full cache."""
    found = []
    for trial in prompt.trials:
        cache = known.reader.read_context(trial)
        size = full_cache_bytes(cache)
        predictions = known.reader.predict(trial, cache)
        found.append(Expected(predictions, count_right(known, trial, predictions), size))
    return tuple(found)


def full_outcome(prompt: Prompt, expected: tuple[Expected, ...]) -> Outcome:
    """The full cache as an outcome like the others."""
    asked = sum(len(trial.answers) for trial in prompt.trials)
    return Outcome(0.0, sum(each.right for each in expected), asked, 1.0)


def run_arm(
    known: Calibration, arm: Arm, prompt: Prompt, expected: tuple[Expected, ...]
) -> Outcome:
    """Run a prompt with an arm's tokens and division."""
    diverged, held, right = [], [], 0
    for trial, full in zip(prompt.trials, expected, strict=True):
        predictions, held_bytes = _predict(known, arm, prompt, trial)
        diverged.append(divergence(full.predictions, predictions))
        right += count_right(known, trial, predictions)
        held.append(held_bytes / full.context_bytes)
    asked = sum(len(trial.answers) for trial in prompt.trials)
    return Outcome(mean(diverged), right, asked, max(held))


def count_right(known: Calibration, trial: Trial, predictions: Tensor) -> int:
    """Questions that greedy generation would answer exactly."""
    return sum(exact for _, exact in known.reader.said(trial, predictions))


def _predict(known: Calibration, arm: Arm, prompt: Prompt, trial: Trial) -> tuple[Tensor, int]:
    plan = arm.division.plan(known, arm.tokens.heuristic, arm.kept, trial)
    tokens = arm.tokens.built(int(plan.capacity_tokens.mean()))
    with budgeted(known.reader.model, plan, tokens, adapt=arm.division.adapt) as cache:
        known.reader.read_context(trial, cache)
        expected, held = [], [cache.nbytes()]
        for part in prompt.parts(trial):
            expected.append(known.reader.predict(part, cache))
            # blocks are cut behind themselves; a future read at once is no longer of interest then
            held += [cache.nbytes()] if prompt.block_tokens else []
        return torch.cat(expected), max(held)
