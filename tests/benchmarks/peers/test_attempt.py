"""Both libraries are run, timed and weighed by the same code."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.fixture
def contender(peers):
    """Makes contenders whose model says what it is told to."""
    attempt = peers("attempt")

    def make(name, logits=None, error=None, smallest=0.0):
        class Told(attempt.Contender):
            @contextmanager
            def reading(self, context, kept):
                if error:
                    raise error
                yield attempt.Reading(None, context.shape[1], int(100 * kept), int(100 * kept))

        told = Told()
        told.name, told.smallest = name, smallest
        told.model = lambda tokens, **_: SimpleNamespace(logits=logits[None, : tokens.shape[1]])
        return told

    return make


@pytest.fixture
def logits():
    return torch.randn(8, 10, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def runner(peers, contender, tmp_path, logits):
    journal = peers("journal").Journal(tmp_path / "rows.jsonl")
    return peers("attempt").Runner(journal, contender("full cache", logits))


def rows(peers, runner):
    return peers("journal").read_rows(runner.journal.path)


def test_the_full_cache_differs_from_itself_by_nothing(peers, runner, trial):
    runner.attempt(runner.full, 1.0, trial)
    (row,) = rows(peers, runner)
    assert (row["divergence"], row["held_bytes"], row["block"]) == (0, 100, 8)


def test_an_attempt_is_compared_with_the_full_cache(peers, runner, contender, trial, logits):
    runner.attempt(contender("other", logits.flip(0)), 0.25, trial)
    (row,) = rows(peers, runner)
    full, other = logits.log_softmax(-1), logits.flip(0).log_softmax(-1)
    wanted = peers("scoring").score(trial, full, other)["divergence"]
    assert row["divergence"] == pytest.approx(wanted)


def test_what_is_in_the_journal_is_not_run_again(peers, runner, contender, trial, logits):
    runner.attempt(contender("a", logits), 0.5, trial)
    runner.attempt(contender("a", error=ValueError("was run")), 0.5, trial)
    assert len(rows(peers, runner)) == 1


def test_a_failure_is_a_row_that_says_why(peers, runner, contender, trial):
    runner.attempt(contender("a", error=ValueError("no fake keys\nat all")), 0.5, trial)
    assert rows(peers, runner)[0]["error"] == "ValueError: no fake keys"


def test_all_are_run_in_rounds_and_none_below_what_it_can_keep(
    peers, runner, contender, trial, logits
):
    attempt, make = peers("attempt"), peers("trial").PeerTrial
    second = make("test", "needles", 1, trial.context, trial.future, trial.answers)
    several = [contender("a", logits), contender("b", logits, smallest=0.4)]
    attempt.run_all(runner, several, (0.25, 0.5), [trial, second])
    found = [(r["name"], r["kept"], r["number"]) for r in rows(peers, runner)][2:]
    one = [("a", 0.25, 0), ("a", 0.5, 0), ("b", 0.5, 0)]
    assert found == [*one, *[(name, kept, 1) for name, kept, _ in one]]


def test_the_peak_counts_what_lives_at_once_and_not_what_is_gone(peers):
    def two_after_each_other():
        torch.empty(1_000_000).fill_(1)
        torch.empty(1_000_000).fill_(1)

    def two_at_once():
        one, other = torch.empty(1_000_000), torch.empty(1_000_000)
        one.copy_(other)

    peak = peers("attempt").peak_bytes
    assert peak(two_after_each_other) == pytest.approx(4_000_000, rel=0.01)
    assert peak(two_at_once) == pytest.approx(8_000_000, rel=0.01)


def test_a_view_counts_as_all_that_it_keeps_alive(peers):
    before = peers("attempt").storages()
    view = torch.zeros(1000)[:10]
    now = peers("attempt").storages()
    assert sum(size for where, size in now.items() if where not in before) == 4000
    assert view.nbytes == 40


def test_tensors_without_memory_of_their_own_do_not_count(peers):
    with FakeTensorMode():
        fake = torch.zeros(1000)
    before = peers("attempt").storages()
    kept = torch.zeros(10)
    now = peers("attempt").storages()
    assert sum(size for where, size in now.items() if where not in before) == kept.nbytes
    assert fake.shape == (1000,)
