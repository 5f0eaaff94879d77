"""Contenders timed in turn, compared within each round.

A busy machine makes absolute times worthless. Every round lets all contenders decode one after
the other and takes the processor time of this process; what is reported is the median and the
quartiles of the rounds' ratios.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.rows import Row

from .case import SEED


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to decode.

    Args:
        name: What it is.
        decode: Decodes one token.
        tokens: How many to decode in a round: enough to show what happens only now and then.
    """

    name: str
    decode: Callable[[], object]
    tokens: int

    def seconds(self) -> float:
        """Processor time of one token."""
        start = time.process_time()
        for _ in range(self.tokens):
            self.decode()
        return (time.process_time() - start) / self.tokens


def compare(case: str, ours: Contender, others: list[Contender], rounds: int) -> Iterator[Row]:
    """Time everybody in turn and give how many times longer the others take."""
    everybody = [ours, *others]
    for contender in everybody:
        contender.seconds()
    times = [[contender.seconds() for contender in everybody] for _ in range(rounds)]
    for contender, seconds in zip(everybody, zip(*times, strict=True), strict=True):
        middle = statistics.median(seconds) * 1e3
        yield Row(case, f"{contender.name}: time of a token, median", middle, "ms", SEED)
    for at, other in enumerate(others, 1):
        low, middle, high = statistics.quantiles([row[at] / row[0] for row in times], n=4)
        against = f"{ours.name}: speed-up over {other.name}"
        yield Row(case, f"{against}, median", middle, "times", SEED)
        yield Row(case, f"{against}, lower quartile", low, "times", SEED)
        yield Row(case, f"{against}, upper quartile", high, "times", SEED)
