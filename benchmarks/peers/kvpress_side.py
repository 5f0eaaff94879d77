"""Run the presses of kvpress on the prompts, in the environment of kvpress.

    python -m benchmarks.peers.kvpress_side FOLDER [--grid]

What is in the journal of the folder is not run again.
"""

import argparse
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils.logging import disable_progress_bar

from benchmarks.peers.attempt import (
    COST_KEPT,
    FULL_CACHE,
    Contender,
    Reading,
    Runner,
    forward,
    run_all,
)
from benchmarks.peers.fitted_presses import fitted
from benchmarks.peers.journal import VERSIONS, Journal
from benchmarks.peers.presses import MASKING, SCORERS, WRAPPERS, Entry, unaccounted
from benchmarks.peers.read_once import Recorder, only_hooks, scoring_once
from benchmarks.peers.shares import GRID, SHARES, grid_contenders, grid_trials
from benchmarks.peers.trial import FIT, TEST, read_trials

WEIGHTS = Path(__file__).parents[2] / "src" / "kvbudget" / "reference_files"
BLOCKS = (256, 16, 1)


@dataclass
class Press(Contender):
    """A press, used as kvpress' own pipeline uses it.

    Args:
        entry: Makes the press; None for the full cache.
        block: Most tokens to read at a time behind the context, as far as is known.
        recorder: Saves time; None where time is measured.
    """

    name: str
    model: Any
    entry: Entry | None
    smallest: float = 0.0
    prompts: int = 1000
    block: int = BLOCKS[0]
    recorder: Recorder | None = None

    @contextmanager
    def reading(self, context: Tensor, kept: float) -> Iterator[Reading]:
        """Read inside the press, and leave it before anything follows."""
        unmask(self.model)
        press = None if self.entry is None else self.entry.make(1 - kept)
        if press is not None and self.recorder is not None and only_hooks(press):
            cache = self.recorder.compressed(self.model, context, press)
        else:
            press = press if self.recorder is None else scoring_once(press)
            cache = DynamicCache()
            with nullcontext() if press is None else press(self.model):
                self.model.model(input_ids=context, past_key_values=cache)
        rotated = self.name.startswith("KeyRerotation")
        position = cache.get_seq_length() if rotated else context.shape[1]
        held = held_bytes(cache)
        yield Reading(cache, position, held, held - masked_bytes(self.model, cache))
        unmask(self.model)

    def predict(self, reading: Reading, future: Tensor) -> tuple[Tensor, int]:
        """Read the future at once, or in smaller blocks where that fails."""
        saved = [(layer.keys.clone(), layer.values.clone()) for layer in reading.cache.layers]
        while True:
            try:
                return self._in_blocks(reading, future), self.block
            except (RuntimeError, ValueError):
                if self.block == BLOCKS[-1]:
                    raise
                self.block = BLOCKS[BLOCKS.index(self.block) + 1]
            for layer, (keys, values) in zip(reading.cache.layers, saved, strict=True):
                layer.keys, layer.values = keys.clone(), values.clone()

    def _in_blocks(self, reading: Reading, future: Tensor) -> Tensor:
        starts = range(0, future.shape[1], self.block)
        parts = [
            forward(
                self.model,
                reading.cache,
                future[:, at : at + self.block],
                reading.position + at,
            )
            for at in starts
        ]
        return torch.cat(parts)


def layers(model: Any) -> list[Any]:
    """The attention layers, on which presses leave what is masked."""
    return [layer.self_attn for layer in model.model.layers]


def unmask(model: Any) -> None:
    """Forget what an earlier press has masked: it stays on the model, not on the cache."""
    for layer in layers(model):
        layer.masked_key_indices = None


def held_bytes(cache: Any) -> int:
    """Bytes of keys and values; a longer storage behind them is gone after the next token."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def masked_bytes(model: Any, cache: Any) -> int:
    """Bytes of the keys and values that are overwritten before they are attended to."""
    found = 0
    for layer, held in zip(layers(model), cache.layers, strict=True):
        if layer.masked_key_indices is not None:
            pair = held.keys[0, 0, 0].nbytes + held.values[0, 0, 0].nbytes
            found += pair * len(layer.masked_key_indices[0])
    return found


def load(attention: str) -> Any:
    """The shipped weights."""
    model = AutoModelForCausalLM.from_pretrained(
        WEIGHTS, dtype=torch.float32, attn_implementation=attention
    )
    return model.eval()


def write_versions(path: Path) -> None:
    """What the presses ran on."""
    names = ("kvpress", "torch", "transformers")
    path.write_text(json.dumps({name: version(name) for name in names}))


def main() -> None:
    """Run everything that is not in the journal yet."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--grid", action="store_true", help="needles of the best presses only")
    arguments.add_argument("--first", type=int, default=1000, help="so many prompts of each kind")
    chosen = arguments.parse_args()
    warnings.filterwarnings("ignore")
    disable_progress_bar()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if missing := unaccounted():
        raise SystemExit(f"{', '.join(sorted(missing))} must be run, or named in not_run.py.")
    write_versions(chosen.folder / VERSIONS)
    prompts, journal = chosen.folder / "prompts.jsonl", Journal(chosen.folder / "kvpress.jsonl")
    models = {False: load("sdpa"), True: load("eager")}
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    entries = {**SCORERS, **WRAPPERS, **MASKING}
    entries |= fitted(models[False], tokenizer, read_trials(prompts, FIT))
    recorder = Recorder()
    presses = [
        Press(name, models[entry.eager], entry, entry.smallest, entry.prompts, recorder=recorder)
        for name, entry in entries.items()
    ]
    trials = [trial for trial in read_trials(prompts, TEST) if trial.number < chosen.first]
    runner = Runner(journal, Press(FULL_CACHE, models[False], None))
    if chosen.grid:
        names = grid_contenders(chosen.folder)
        best = [press for press in presses if press.name in names]
        run_all(runner, best, GRID, grid_trials(trials))
        return
    run_all(runner, presses, SHARES, trials)
    for press in [runner.full, *(each for each in presses if each.smallest <= COST_KEPT)]:
        press.recorder = None
        runner.cost(press, trials[0])


if __name__ == "__main__":
    main()
