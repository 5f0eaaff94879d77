"""Run every arm on its kinds of prompts, one line of the file for each, skipping what is there."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.quality.division import FUTURE_TOKENS
from kvbudget import reference_model
from kvbudget.demo.trying import Reader

from .arms import Arm, Outcome, expect, full_outcome, run_arm
from .calibration import Calibration
from .claim import Claim
from .kinds import KINDS, Prompt, calibration_ids, make_prompts
from .record import FULL, Record, about, append, read_records


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run.

    Args:
        prompts: Prompts of each kind.
        calibration: Calibration prompts of each kind, of other texts and seeds.
    """

    prompts: int = 12
    calibration: int = 4


def wanted(claims: Sequence[Claim]) -> Iterator[tuple[Arm, str]]:
    """Every arm and kind that the claims need, each once."""
    found: dict[tuple[str, str], Arm] = {}
    for claim in claims:
        for arm, kinds in claim.arms:
            for kind in kinds:
                found.setdefault((arm.name, kind), arm)
    for (_, kind), arm in found.items():
        yield arm, kind


def run(claims: Sequence[Claim], sentences: list[str], size: Size, file: Path, kept: Path) -> None:
    """Run what the file does not hold yet, and say how it goes.

    Args:
        claims: Whose arms are run.
        sentences: Prose; the first half is calibrated on, the second half is tested on.
        size: How much.
        file: Where the lines are added.
        kept: Folder for what is measured once.
    """
    reader, half = Reader(*reference_model()), len(sentences) // 2
    calibration = make_prompts(reader, sentences[:half], size.calibration, 1000)
    kept.mkdir(parents=True, exist_ok=True)
    known = Calibration(reader, calibration_ids(calibration), kept, FUTURE_TOKENS)
    prompts = make_prompts(reader, sentences[half:], size.prompts, 2000)
    expected = {kind: [expect(known, each) for each in prompts[kind]] for kind in KINDS}
    done, facts = read_records(file), about()
    for kind in KINDS:
        if (FULL, kind) not in done:
            outcomes = map(full_outcome, prompts[kind], expected[kind])
            append(file, record_of(FULL, kind, prompts[kind], outcomes), facts)
    for arm, kind in wanted(claims):
        if (arm.name, kind) not in done:
            start = time.perf_counter()
            outcomes = map(partial(run_arm, known, arm), prompts[kind], expected[kind])
            record = record_of(arm.name, kind, prompts[kind], outcomes)
            append(file, record, facts)
            print(f"{line(record)}, {time.perf_counter() - start:.0f} s", flush=True)


def record_of(
    arm: str, kind: str, prompts: Sequence[Prompt], outcomes: Iterable[Outcome]
) -> Record:
    """What an arm came to on all prompts of a kind."""
    return Record(arm, kind, tuple(prompt.seed for prompt in prompts), tuple(outcomes))


def line(record: Record) -> str:
    """What to print of a record."""
    return (
        f"{record.arm} | {record.kind}: {record.divergence.mean():.4g} nats per token, "
        f"{record.right.sum():.0f} of {record.asked.sum():.0f} right, {record.held:.1%} held"
    )
