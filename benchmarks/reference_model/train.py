"""Train the reference model on a CPU.

python train.py --minutes 100 --out FOLDER [--start FOLDER] [--resume]
"""

import argparse
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import network
import torch
from optimiser import Optimiser
from tasks import ANSWER, CONTINUED, FIRST, FROM_SCRATCH, TEXT, Encode, Mixture, rows
from texts import Texts, data_folder, training_texts
from tokenizers import Tokenizer
from torch import Tensor

SHIPPED = Path(__file__).resolve().parents[2] / "src" / "kvbudget" / "reference_files"
BATCH_TOKENS = 4224
WARM_UP_STEPS = 60


@dataclass(slots=True)
class Progress:
    """How far the run is: steps, tokens, and the share of its time behind it."""

    step: int = 0
    tokens: int = 0
    done: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, losses: Tensor) -> None:
        """Keep a running mean of some tokens' loss."""
        if losses.numel():
            mean = losses.mean().item()
            self.losses[name] = 0.95 * self.losses.get(name, mean) + 0.05 * mean


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=170, help="wall-clock time of the run")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and model")
    parser.add_argument("--start", help="transformers folder to go on from; else from scratch")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--data", help="folder of gutenberg.jsonl.xz")
    parser.add_argument("--tokenizer", type=Path, default=SHIPPED / "tokenizer.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=6e-3)
    parser.add_argument("--hold", type=float, default=0.4, help="share before the rates decay")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler; 1.2 x speed")
    return parser.parse_args()


def batches(
    rng: random.Random, encode: Encode, texts: Texts, mixture: Mixture
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless token ids and weights [batch, tokens + 1] of about `BATCH_TOKENS` tokens."""
    sources = {n: rows(rng, encode, texts, mixture, n + 1) for n in mixture.lengths}
    while True:
        length = rng.choice(mixture.lengths)
        chosen = [next(sources[length]) for _ in range(BATCH_TOKENS // length)]
        ids, weights = zip(*chosen, strict=True)
        yield torch.tensor(ids), torch.tensor(weights)


def scale(progress: Progress, hold: float) -> float:
    """Share of the learning rates: warm-up, then held, then down to nearly nothing."""
    fall = min(1.0, (1 - progress.done) / (1 - hold))
    return min(1.0, (progress.step + 1) / WARM_UP_STEPS) * max(0.01, fall)


def save(folder: Path, model: network.Model, optimiser: Optimiser, progress: Progress) -> None:
    """Write a checkpoint under another name first, so that a reader never sees half of one."""
    state = {
        "model": {name: t.detach() for name, t in model.state_dict().items()},
        "optimiser": optimiser.state_dict(),
        "progress": {"step": progress.step, "tokens": progress.tokens, "done": progress.done},
    }
    torch.save(state, folder / "checkpoint.tmp")
    os.replace(folder / "checkpoint.tmp", folder / "checkpoint.pt")


def load(folder: Path) -> dict[str, Any]:
    """Read the checkpoint."""
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def export(model: network.Model, tokenizer: Path, folder: Path) -> None:
    """Write the model and its tokenizer as transformers reads them."""
    from transformers import PreTrainedTokenizerFast

    network.to_transformers(model).save_pretrained(folder)
    end = "<|endoftext|>"
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer), bos_token=end, eos_token=end, pad_token=end
    )
    fast.save_pretrained(folder)


def train(options: argparse.Namespace) -> network.Model:
    """Run the loop until the minutes are over."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.start:
        model, phases = network.from_transformers(options.start), CONTINUED
    else:
        model, phases = network.Model(network.Shape()), FROM_SCRATCH
    optimiser = Optimiser(model, options.muon_lr, options.adam_lr)
    progress = Progress()
    if options.resume:
        state = load(options.out)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        progress = Progress(**state["progress"])
    if options.compile:
        network.compile_parts(model)
    tokenizer = Tokenizer.from_file(str(options.tokenizer))
    texts = training_texts(data_folder(options.data))
    rng = random.Random(2 + progress.step)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text).ids

    before, began, saved = progress.done, time.monotonic(), time.monotonic()
    phase = None
    while progress.done < 1:
        current = next(p for p in phases if progress.done < p.until)
        if current is not phase:
            phase, source = current, batches(rng, encode, texts, current)
        ids, weights = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            loss, each = model(ids[:, :-1], ids[:, 1:], weights[:, 1:])
        loss.backward()
        optimiser.step(scale(progress, options.hold))
        progress.step += 1
        progress.tokens += weights[:, 1:].numel()
        length = ids.shape[1] - 1
        for name, weight in (("text", TEXT), ("first", FIRST), ("rest", ANSWER)):
            progress.note(f"{name}@{length}", each[weights[:, 1:] == weight])
        share = (time.monotonic() - began) / (options.minutes * 60)
        progress.done = before + (1 - before) * share
        if progress.step % 50 == 0:
            report(progress)
        if time.monotonic() - saved > 180:
            save(options.out, model, optimiser, progress)
            saved = time.monotonic()
    save(options.out, model, optimiser, progress)
    return model


def report(progress: Progress) -> None:
    """Say where the run is."""
    losses = " ".join(f"{n} {loss:.3f}" for n, loss in sorted(progress.losses.items()))
    now = time.strftime("%H:%M:%S")
    millions = progress.tokens / 1e6
    place = f"step {progress.step} tokens {millions:.2f}M done {progress.done:.3f}"
    print(f"{now} {place} {losses}", flush=True)


def main() -> None:
    """Train, then export."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    export(train(options), options.tokenizer, options.out / "model")


if __name__ == "__main__":
    main()
