"""Kinds of prompts: the question unknown, known, or another one; text that goes on."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.quality.division import CONTEXT_TOKENS, FUTURE_TOKENS
from kvbudget.demo.trying import Reader
from kvbudget.trials import Trial, TrialMaker

from .lookups import Lookups

TEXT, NEEDLES, LOOKUPS = "text", "needles", "lookups"
KNOWN_NEEDLES, KNOWN_LOOKUPS = "needles, question known", "lookups, question known"
OTHER_NEEDLES, OTHER_LOOKUPS = (
    "needles, cut for another question",
    "lookups, cut for another question",
)
WRITING = "text, cut while writing"
UNKNOWN = (TEXT, NEEDLES, LOOKUPS)
KNOWN = (KNOWN_NEEDLES, KNOWN_LOOKUPS)
OTHER = (OTHER_NEEDLES, OTHER_LOOKUPS)
KINDS = (*UNKNOWN, *KNOWN, *OTHER, WRITING)
TEXT_KINDS = (TEXT, WRITING)
BLOCK_TOKENS = 16
ASKED_OF_EACH = 2


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: a trial or several about the same context, and how its future is read.

    Args:
        trials: Each is read with a cache of its own.
        seed: What the prompt was drawn with.
        block_tokens: Tokens of the future that are read at once; None for all of them. The cache
            is cut again behind each block.
    """

    trials: tuple[Trial, ...]
    seed: int
    block_tokens: int | None = None

    def parts(self, trial: Trial) -> list[Trial]:
        """The trial's future block by block."""
        size = self.block_tokens or len(trial.future)
        starts = range(0, len(trial.future), size)
        return [Trial(trial.context, trial.future[start : start + size]) for start in starts]


def make_prompts(
    reader: Reader, sentences: list[str], count: int, seed: int
) -> dict[str, list[Prompt]]:
    """So many prompts of each kind, by kind."""
    maker = TrialMaker(sentences, reader.tokenizer, CONTEXT_TOKENS, FUTURE_TOKENS)
    lookups, seeds = Lookups(reader, CONTEXT_TOKENS, FUTURE_TOKENS), range(seed, seed + count)
    text = [maker.text(each) for each in seeds]
    needles = [maker.needles(each) for each in seeds]
    tables = [lookups.trial(each) for each in seeds]
    lead, closing = lookups.opening_tokens, lookups.closing_tokens
    trials = {
        TEXT: [(trial,) for trial in text],
        NEEDLES: [(trial,) for trial in needles],
        LOOKUPS: [(trial,) for trial in tables],
        KNOWN_NEEDLES: [asked_first(trial, 0, 0) for trial in needles],
        KNOWN_LOOKUPS: [asked_first(trial, lead, closing) for trial in tables],
        OTHER_NEEDLES: [(after_one(trial),) for trial in needles],
        OTHER_LOOKUPS: [(after_one(trial),) for trial in tables],
        WRITING: [(trial,) for trial in text],
    }
    return {
        kind: [
            Prompt(each, number, BLOCK_TOKENS if kind == WRITING else None)
            for each, number in zip(found, seeds, strict=True)
        ]
        for kind, found in trials.items()
    }


def after_one(trial: Trial) -> Trial:
    """The same with the first question and its answer moved into the context."""
    end = trial.answers[0][1]
    later = tuple((start - end, stop - end) for start, stop in trial.answers[1:])
    return Trial([*trial.context, *trial.future[:end]], trial.future[end:], later)


def asked_first(trial: Trial, lead: int, closing: int) -> tuple[Trial, ...]:
    """The first questions of a trial, each moved into the context.

    As where a prompt is cut once it has been read, the first token of the answer comes of the full
    cache, and all that follow of the cut one.

    Args:
        trial: Questions stand in its future.
        lead: Tokens that stand before the first question alone; every one of these begins so.
        closing: Tokens that close an answer, at the start of every later question.
    """
    found, before = [], 0
    for index, (start, end) in enumerate(trial.answers[:ASKED_OF_EACH]):
        question = trial.future[before if index == 0 else before + closing : start]
        if index > 0:
            question = [*trial.future[:lead], *question]
        context = [*trial.context, *question]
        found.append(Trial(context, trial.future[start : end + 1], ((1, end - start),)))
        before = end
    return tuple(found)


def calibration_ids(prompts: dict[str, list[Prompt]]) -> list[list[int]]:
    """Token ids of all prompts whose question is unknown, to measure on."""
    return [trial.ids for kind in UNKNOWN for prompt in prompts[kind] for trial in prompt.trials]


def mean(values: Sequence[float]) -> float:
    """The mean, NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")
