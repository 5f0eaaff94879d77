"""What has been seen of one cache on one task, and the row it comes to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import torch
from torch import Tensor

from kvbudget.allocator.settings import call_text
from kvbudget.heuristics import name_of, settings_of
from kvbudget.runtime.replay import mean_divergence

from .caches import PlannedCache
from .evaluation import FULL, EvaluationRow
from .evaluation_table import PERPLEXITY
from .reading import Reading
from .sample import Sample

SHARE = "share right"


@dataclass(slots=True)
class Tally:
    """Figures of one cache on one task, sample by sample.

    Args:
        name: Name of the cache.
        planned: The plan's cache; None for the full cache.
        scores: Score of each question.
        divergence: Divergence from the full cache at each answer, in nats per token.
        held_bytes: Most bytes held.
        peak_bytes: Most bytes that lived while a context was read.
        longest: Tokens of the longest sequence.
        prefill_seconds: Time of each reading of a context.
        token_seconds: Time of each generated token.
        said: What was answered to the first question.
    """

    name: str
    planned: PlannedCache | None
    scores: list[float] = field(default_factory=list)
    divergence: list[float] = field(default_factory=list)
    held_bytes: int = 0
    peak_bytes: int = 0
    longest: int = 0
    prefill_seconds: list[float] = field(default_factory=list)
    token_seconds: list[float] = field(default_factory=list)
    said: str = ""

    def note(self, sample: Sample, found: Reading, answers: Sequence[list[int]]) -> None:
        """Take a reading in.

        Args:
            sample: What was read.
            found: What came of it.
            answers: Token ids of the right answers.
        """
        if sample.form.is_text:
            pairs = zip(found.logits, answers, strict=True)
            self.scores += [perplexity(logits[:-1], ids) for logits, ids in pairs]
        else:
            if not self.scores:
                self.said = found.said[0]
            judged = zip(found.said, sample.questions, strict=True)
            self.scores += [sample.form.score(said, asked.answers) for said, asked in judged]
        self.held_bytes = max(self.held_bytes, found.held_bytes)
        self.prefill_seconds += found.prefill_seconds
        self.token_seconds += found.token_seconds

    def compare(self, full: Reading, found: Reading) -> None:
        """Take in how far a reading lies from that of the full cache."""
        pairs = zip(full.logits, found.logits, strict=True)
        self.divergence += [float(mean_divergence(one, other)) for one, other in pairs]

    def row(
        self, first: Sample, samples: int, full: "Tally | None", full_bytes: int
    ) -> EvaluationRow:
        """The row.

        Args:
            first: The first sample of the task.
            samples: How many there were.
            full: What was seen of the full cache, if it was run.
            full_bytes: Bytes of the full cache of the longest sequence.
        """
        plan = None if self.planned is None else self.planned.plan
        return EvaluationRow(
            task=first.task,
            cache=self.name,
            score=self.score(first),
            unit=PERPLEXITY if first.form.is_text else SHARE,
            full_score=None if full is None else full.score(first),
            divergence=fmean(self.divergence) if self.divergence else None,
            scores=tuple(self.scores),
            samples=samples,
            asked_bytes=full_bytes if plan is None else plan.budget_bytes,
            held_bytes=self.held_bytes,
            peak_bytes=self.peak_bytes,
            prefill_seconds=median(self.prefill_seconds),
            token_seconds=median(self.token_seconds) if self.token_seconds else None,
            solver="" if plan is None else plan.certificate.solver,
            heuristic=heuristic_text(self.planned),
            adaptation=adaptation_text(self.planned),
            right="" if first.form.is_text else first.questions[0].right,
            said=self.said,
        )

    def score(self, sample: Sample) -> float:
        """Mean score; of texts the geometric mean of their perplexities."""
        if sample.form.is_text:
            return math.exp(fmean(map(math.log, self.scores)))
        return fmean(self.scores)


def perplexity(logits: Tensor, ids: list[int]) -> float:
    """How many tokens a model wavers between, on average, where a text goes on.

    Args:
        logits: [tokens, vocabulary], what is expected at each token.
        ids: The tokens that came.
    """
    target = torch.tensor(ids, device=logits.device)
    return float(torch.nn.functional.cross_entropy(logits.double(), target).exp())


def full_tally() -> Tally:
    """An empty tally of the full cache."""
    return Tally(FULL, None)


def heuristic_text(planned: PlannedCache | None) -> str:
    """What chooses the tokens, with its settings; empty for the full cache."""
    if planned is None:
        return ""
    if planned.heuristic is None:
        return call_text(planned.plan.heuristic, planned.plan.heuristic_settings)
    return call_text(name_of(planned.heuristic), settings_of(planned.heuristic))


def adaptation_text(planned: PlannedCache | None) -> str:
    """What divides the bytes anew, with its settings; empty if nothing does."""
    return "" if planned is None or planned.adapt is None else repr(planned.adapt)
