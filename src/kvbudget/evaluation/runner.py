"""Runs the samples of one task with every cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kvbudget.runtime import geometry_of

from .caches import FullCache, PlannedCache
from .evaluation import FULL, EvaluationRow
from .reading import Reader, Reading
from .sample import Sample
from .tally import Tally


@dataclass(frozen=True, slots=True)
class Runner:
    """A model, and the caches it is to run with.

    Args:
        reader: The model.
        planned: Caches of plans, by name.
        full: Whether the full cache is run, too.
    """

    reader: Reader
    planned: Mapping[str, PlannedCache]
    full: bool

    def work(self, samples: Sequence[Sample]) -> int:
        """How often `rows` says that a piece of work is done, over all tasks together."""
        return len(samples) * (len(self.planned) + self.full)

    def rows(self, samples: Sequence[Sample], step: Callable[[], object]) -> list[EvaluationRow]:
        """The rows of one task, the full cache first.

        Args:
            samples: All samples of the task.
            step: Called after each reading.
        """
        full = Tally(FULL, None) if self.full else None
        tallies = [Tally(name, planned) for name, planned in self.planned.items()]
        for sample in samples:
            reference = None if full is None else self._note(full, sample, step)
            for tally in tallies:
                found = self._note(tally, sample, step)
                if reference is not None:
                    tally.compare(reference, found)
        longest = max(samples, key=self.reader.wording.length)
        full_bytes = geometry_of(self.reader.model).full_bytes(self.reader.wording.length(longest))
        every = tallies if full is None else [full, *tallies]
        # what is read at once need not be the longest sequence in the end
        most = max(samples, key=lambda sample: len(self.reader.longest_ids(sample)))
        for tally in every:
            tally.peak_bytes = self.reader.peak_bytes(most, tally.planned or FullCache())
        return [tally.row(samples[0], len(samples), full, full_bytes) for tally in every]

    def _note(self, tally: Tally, sample: Sample, step: Callable[[], object]) -> Reading:
        """Read a sample with one cache, and take the figures in."""
        found = self.reader.read(sample, tally.planned or FullCache())
        wording = self.reader.wording
        answers = [wording.answer_ids(sample, question) for question in sample.questions]
        tally.note(sample, found, answers)
        step()
        return found
