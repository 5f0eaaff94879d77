"""Run one contender on one trial and on one question of cost: the same code for both libraries."""

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.profiler import ProfilerActivity, profile

from benchmarks.peers.journal import Journal
from benchmarks.peers.scoring import score
from benchmarks.peers.trial import PeerTrial

FULL_CACHE = "full cache"
COST, COST_KEPT, REPEATS, NEW_TOKENS = "cost", 0.25, 3, 16


@dataclass(frozen=True, slots=True)
class Reading:
    """A context that has been read and cut.

    Args:
        cache: What the model is given for the tokens that follow.
        position: Position of the next token.
        held_bytes: Bytes of the live storages of keys and values.
        used_bytes: The same without what is held but overwritten at every step.
    """

    cache: Any
    position: int
    held_bytes: int
    used_bytes: int


class Contender(ABC):
    """A way to read a context into less memory.

    Args:
        name: What it is called in tables.
        model: The model it reads with.
        smallest: Least share of the cache that it can keep.
        prompts: Most prompts of a kind that it is tried on.
    """

    name: str
    model: Any
    smallest: float = 0.0
    prompts: int = 1000

    @abstractmethod
    def reading(self, context: Tensor, kept: float) -> AbstractContextManager[Reading]:
        """Read a context, [1, tokens], keeping a share of it; the cache is valid inside."""

    def predict(self, reading: Reading, future: Tensor) -> tuple[Tensor, int]:
        """Logits behind every token of the future, and the most tokens read in one forward."""
        return forward(self.model, reading.cache, future, reading.position), future.shape[1]


def forward(model: Any, cache: Any, tokens: Tensor, position: int) -> Tensor:
    """Logits behind each of the tokens, [tokens, vocabulary]."""
    positions = torch.arange(position, position + tokens.shape[1])[None]
    logits: Tensor = model(tokens, past_key_values=cache, position_ids=positions).logits[0]
    return logits.float()


@dataclass(slots=True)
class Runner:
    """Tries contenders on trials and writes what comes out.

    Args:
        journal: Takes a row for every attempt.
        full: The full cache of the same process, which every other is compared with.
    """

    journal: Journal
    full: Contender
    references: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def attempt(self, contender: Contender, kept: float, trial: PeerTrial) -> None:
        """Run one trial unless its row is there; a failure is a row too."""
        if (contender.name, kept, trial.kind, trial.number) in self.journal:
            return
        about = {"name": contender.name, "kept": kept, "kind": trial.kind, "number": trial.number}
        try:
            found = self._figures(contender, kept, trial)
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, KeyError) as error:
            found = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        self.journal.add(about | found)

    def cost(self, contender: Contender, trial: PeerTrial) -> None:
        """Measure time and memory on one context unless the row is there."""
        if (contender.name, COST_KEPT, COST, 0) not in self.journal:
            about = {"name": contender.name, "kept": COST_KEPT, "kind": COST, "number": 0}
            self.journal.add(about | cost(contender, trial))

    @torch.no_grad()
    def _figures(self, contender: Contender, kept: float, trial: PeerTrial) -> dict[str, Any]:
        reference = self._reference(trial)
        # some scores are drawn
        torch.manual_seed(trial.number)
        with contender.reading(torch.tensor([trial.context]), kept) as reading:
            logits, block = contender.predict(reading, torch.tensor([trial.future]))
        return {
            **score(trial, reference, logits.log_softmax(-1)),
            "held_bytes": reading.held_bytes,
            "used_bytes": reading.used_bytes,
            "block": block,
        }

    def _reference(self, trial: PeerTrial) -> Tensor:
        key = trial.kind, trial.number
        if key not in self.references:
            with self.full.reading(torch.tensor([trial.context]), 1.0) as reading:
                logits, _ = self.full.predict(reading, torch.tensor([trial.future]))
            self.references[key] = logits.log_softmax(-1)
        return self.references[key]


@torch.no_grad()
def cost(contender: Contender, trial: PeerTrial) -> dict[str, Any]:
    """Processor seconds of reading a context and of each token after it, and memory."""
    context, prefill, token = torch.tensor([trial.context]), [], []
    for _ in range(REPEATS):
        start = time.process_time()
        with contender.reading(context, COST_KEPT) as reading:
            prefill.append(time.process_time() - start)
            start = time.process_time()
            for step in range(NEW_TOKENS):
                one = torch.tensor([[trial.future[step]]])
                forward(contender.model, reading.cache, one, reading.position + step)
            token.append((time.process_time() - start) / NEW_TOKENS)
    return {
        "prefill_s": sorted(prefill)[REPEATS // 2],
        "token_s": sorted(token)[REPEATS // 2],
        "peak_bytes": peak_bytes(lambda: _read(contender, context)),
        "alive_bytes": _alive(contender, context),
    }


def _read(contender: Contender, context: Tensor) -> None:
    with contender.reading(context, COST_KEPT):
        pass


def peak_bytes(run: Callable[[], None]) -> int:
    """Most bytes of tensors that were alive at once beyond those alive before, as allocated."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def _alive(contender: Contender, context: Tensor) -> int:
    before = storages()
    with contender.reading(context, COST_KEPT):
        now = storages()
    return sum(size for where, size in now.items() if where not in before)


def storages() -> dict[int, int]:
    """Bytes of every storage that some live tensor uses, by address."""
    gc.collect()
    found: dict[int, int] = {}
    for tensor in _tensors():
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return found


def _tensors() -> Iterator[Tensor]:
    for each in gc.get_objects():
        # other kinds, such as the fake ones of a compiler, hold no bytes of their own
        if type(each) in (Tensor, Parameter):
            yield each


def run_all(
    runner: Runner, contenders: Sequence[Contender], shares: Sequence[float], trials: Sequence[Any]
) -> None:
    """Every contender at every share on every trial: the first trial of each kind first."""
    for trial in trials:
        runner.attempt(runner.full, 1.0, trial)
    for trial in trials:
        print(f"{trial.kind} {trial.number}", flush=True)
        for contender in [each for each in contenders if trial.number < each.prompts]:
            for kept in [share for share in shares if share >= contender.smallest]:
                runner.attempt(contender, kept, trial)
