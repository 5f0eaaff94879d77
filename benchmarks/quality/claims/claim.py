"""What a claim is: the arms that are tried, and which outcomes would bear it out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import exp

from .arms import Arm
from .kinds import TEXT_KINDS
from .record import FULL, Record
from .statistics import Interval, difference_of_shares, ratio_of_means

Records = Mapping[tuple[str, str], Record]
# an answer in twenty, or a text one part in twenty less likely
NEGLIGIBLE = 0.05


class Verdict(Enum):
    """How a claim came out; the value is the word for it."""

    REPRODUCED = "reproduced"
    PARTLY = "partly reproduced"
    NOT = "not reproduced"


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one test.

    Args:
        text: The outcome in words, with its figures.
        holds: Whether it bears the claim out.
    """

    text: str
    holds: bool


class Test(ABC):
    """One thing that would be seen if the claim held here."""

    __slots__ = ()

    @abstractmethod
    def look(self, records: Records) -> Finding:
        """Look at what was measured."""


@dataclass(frozen=True, slots=True)
class Beats(Test):
    """One arm diverges less from the full cache than another at the same bytes.

    It does if the whole 95 % interval of the ratio lies below 1.

    Args:
        one: The arm that should be better.
        other: The one it is held against.
        kinds: Kinds of prompts that count.
        where: The setting in words.
    """

    one: Arm
    other: Arm
    kinds: tuple[str, ...]
    where: str

    def look(self, records: Records) -> Finding:
        """Compare prompt by prompt."""
        ratio = self.ratio(records)
        word = "less" if ratio.high < 1 else "more" if ratio.low > 1 else "no clear difference"
        text = (
            f"{self.where}: `{self.one.name}` against `{self.other.name}`: divergence x "
            f"{figures(ratio)}: {word}{self._answers(records)}"
        )
        return Finding(text, ratio.high < 1)

    def ratio(self, records: Records) -> Interval:
        """Divergence of one over that of the other."""
        pairs = [
            (records[self.one.name, kind], records[self.other.name, kind]) for kind in self.kinds
        ]
        return ratio_of_means([(one.divergence, other.divergence) for one, other in pairs])

    def _answers(self, records: Records) -> str:
        kinds = [kind for kind in self.kinds if kind not in TEXT_KINDS]
        if not kinds:
            return ""
        pairs = [(records[self.one.name, kind], records[self.other.name, kind]) for kind in kinds]
        more = difference_of_shares(
            [(one.right, other.right) for one, other in pairs], [one.asked for one, _ in pairs]
        )
        return (
            f"; right answers {100 * more.value:+.0f} points "
            f"[{100 * more.low:+.0f}, {100 * more.high:+.0f}]"
        )


@dataclass(frozen=True, slots=True)
class Holds(Test):
    """An arm loses next to nothing against the full cache.

    Questions: it answers at least 95 % as many as the full cache does. Text: what the full cache
    would write becomes at most 5 % less likely per token, which is a divergence of 0.051 nats.

    Args:
        arm: The arm.
        kinds: Kinds of prompts, each of which has to hold.
        where: The setting in words.
    """

    arm: Arm
    kinds: tuple[str, ...]
    where: str

    def look(self, records: Records) -> Finding:
        """Compare with the full cache, kind by kind."""
        each = [self._kind(records, kind) for kind in self.kinds]
        text = f"{self.where}: `{self.arm.name}` holds the quality: " + "; ".join(
            t for t, _ in each
        )
        return Finding(text, all(holds for _, holds in each))

    def _kind(self, records: Records, kind: str) -> tuple[str, bool]:
        record, full = records[self.arm.name, kind], records[FULL, kind]
        if kind in TEXT_KINDS:
            nats = float(record.divergence.mean())
            lost = 1 - exp(-nats)
            return f"{kind} {100 * lost:.1f} % less likely", lost <= NEGLIGIBLE
        share = float(record.right.sum() / full.right.sum())
        return f"{kind} {100 * share:.0f} % of the full cache's answers", share >= 1 - NEGLIGIBLE


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a paper, and what would be seen here if it held.

    Args:
        paper: Short name of the method.
        title: Authors, title, where and when.
        link: Where it can be read.
        says: The claim in our own words.
        tried: How it is tried here, and what differs from the paper.
        arms: What is run, with the kinds of prompts it is run on.
        tests: What has to be seen; all of it for the claim to be reproduced.
        ours: The same tokens under the division solved for divergence, against the paper's.
        beside: Comparisons that are shown beside and do not count.
        short: The outcome in a few words.
        why: What explains the outcome.
        untested: What cannot be tested here, and why.
    """

    paper: str
    title: str
    link: str
    says: str
    tried: str
    arms: tuple[tuple[Arm, tuple[str, ...]], ...]
    tests: tuple[Test, ...]
    ours: Beats
    short: str
    why: str
    untested: str
    beside: tuple[Test, ...] = ()

    def verdict(self, records: Records) -> Verdict:
        """Reproduced if every test holds, not if none does."""
        held = [test.look(records).holds for test in self.tests]
        if all(held):
            return Verdict.REPRODUCED
        return Verdict.PARTLY if any(held) else Verdict.NOT


def figures(interval: Interval) -> str:
    """A figure with its interval, three digits."""
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
