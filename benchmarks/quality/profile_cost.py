"""What a profile costs: all levels of all caches, against a plain forward pass of the same prompt.

    python -m benchmarks.quality.profile_cost --json profile_cost.jsonl

On the shipped model each measure and the plain forward pass take turns in one process. On a random
model with a long context each has a fresh process for every length, which also tells the peak of
the memory. Times are processor time on one thread, so that other work on the machine shows less.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.rows import Row, report
from kvbudget import measure_profile, reference_model
from kvbudget.heuristics import ObservationWindow

MEASURES = ("attention_mass", "output_error", "divergence")
NOTHING = "plain"
SEED = 0


def llama(tokens: int) -> PreTrainedModel:
    """A random Llama: 8 layers with 8 KV heads of 64, hidden size 512."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=tokens,
    )
    return LlamaForCausalLM(config).eval()


def prompt_for(model: PreTrainedModel, tokens: int) -> list[int]:
    """Random tokens: what they say has no bearing on the time."""
    draw = torch.Generator().manual_seed(SEED)
    return torch.randint(3, model.config.vocab_size, (tokens,), generator=draw).tolist()


def plain(model: PreTrainedModel, prompt: list[int]) -> None:
    """One forward pass as generation does it before the first new token."""
    with torch.inference_mode():
        model(torch.tensor([prompt]), use_cache=False, logits_to_keep=1)


def profile(model: PreTrainedModel, prompt: list[int], measure: str) -> None:
    """All levels of all caches of one prompt."""
    measure_profile(model, [prompt], ObservationWindow(), measure=measure, progress=False)


def seconds(run: Callable[[], None]) -> float:
    """Processor time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def ratios(name: str, model: PreTrainedModel, tokens: int, repeats: int) -> Iterator[Row]:
    """Time of each measure over that of the forward pass beside it."""
    prompt = prompt_for(model, tokens)
    plain(model, prompt[:512])
    for measure in MEASURES:
        profile(model, prompt[:512], measure)
    beside: list[float] = []
    taken: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for _ in range(repeats):
        beside.append(seconds(lambda: plain(model, prompt)))
        for measure in MEASURES:
            taken[measure].append(seconds(lambda each=measure: profile(model, prompt, each)))
    yield Row(f"{name}, plain forward pass", "least time", min(beside), "s", SEED)
    for measure, times in taken.items():
        pairs = [time / forward for time, forward in zip(times, beside, strict=True)]
        case = f"{name}, {measure}"
        yield Row(case, "time / forward, median", median(pairs), "1", SEED)
        yield Row(case, "time / forward, lowest", min(pairs), "1", SEED)
        yield Row(case, "time / forward, highest", max(pairs), "1", SEED)
        yield Row(case, "least time / least forward", min(times) / min(beside), "1", SEED)


def long_prompts(lengths: Sequence[int]) -> Iterator[Row]:
    """Time and growth of the resident memory on a random model, a process for each figure."""
    for tokens in lengths:
        forward = 0.0
        for what in (NOTHING, *MEASURES):
            taken, grown = in_fresh_process(what, tokens)
            case = f"random Llama, {tokens} tokens, {what}"
            yield Row(case, "peak memory above the loaded model", grown, "MiB", SEED)
            if what == NOTHING:
                forward = taken
                yield Row(case, "time", taken, "s", SEED)
            else:
                yield Row(case, "time / forward", taken / forward, "1", SEED)


def in_fresh_process(what: str, tokens: int) -> tuple[float, float]:
    """Run `--one` in a process of its own: seconds and MiB."""
    command = [sys.executable, "-m", __spec__.name, "--one", what, "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, grown = done.stdout.split()
    return float(taken), float(grown)


def one(what: str, tokens: int) -> tuple[float, float]:
    """Seconds, and growth of this process' peak in MiB, while `what` is done to a prompt."""
    model = llama(tokens)
    prompt = prompt_for(model, tokens)
    run = plain if what == NOTHING else lambda *given: profile(*given, what)
    run(model, prompt[:256])
    before = resident()
    taken = seconds(lambda: run(model, prompt))
    return taken, resident() - before


def resident() -> float:
    """Peak resident memory of this process so far, MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def run(repeats: int, lengths: Sequence[int]) -> Iterator[Row]:
    """The shipped model, and a random one with longer contexts."""
    shipped, _ = reference_model()
    yield from ratios("shipped model, 2048 tokens", shipped, 2048, repeats)
    yield from long_prompts(lengths)


def main() -> None:
    """Run and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tokens", type=int, nargs="*", default=[4096, 8192, 16384])
    parser.add_argument("--one", help="only print seconds and MiB of this measure at --tokens")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        print(*one(arguments.one, arguments.tokens[0]))
    else:
        report(run(arguments.repeats, arguments.tokens), arguments.json)


if __name__ == "__main__":
    main()
