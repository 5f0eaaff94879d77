"""Two processes measure what one measures, and each of them gets all of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvbudget import KVBudgetError, Profile
from kvbudget import heuristics as H
from kvbudget.runtime import calibration, measure_profile
from kvbudget.runtime.distributed import Ranks

ROOT = Path(__file__).parents[2]

SCRIPT = """
import contextlib, io, json, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import torch.distributed
from kvbudget.runtime import calibration
from tests.runtime.test_distributed import a_llama, measure, some_prompts

torch.distributed.init_process_group("gloo")
rank, folder = torch.distributed.get_rank(), Path(sys.argv[2])
prompts, model = some_prompts(), a_llama()
told = {}

lengths, of = [], calibration.PromptLosses.of

def noting(self, prompt, advance):
    lengths.append(len(prompt.ids))
    return of(self, prompt, advance)

calibration.PromptLosses.of = noting
with contextlib.redirect_stderr(io.StringIO()) as shown:
    profile = measure(model, prompts, folder / "profile.ckpt.safetensors", progress=True)
profile.save(folder / f"profile{rank}.safetensors")
told["lengths"], told["shown"] = list(lengths), shown.getvalue()

# this file holds the three prompts that one process measured
lengths.clear()
measure(model, prompts, folder / "one.safetensors")
told["lengths after one process"] = list(lengths)

try:
    measure(model, prompts[rank:], None)
except ValueError as error:
    told["other prompts"] = str(error)

def failing(self, prompt, advance):
    if rank == 1:
        raise MemoryError("no memory left")
    return of(self, prompt, advance)

calibration.PromptLosses.of = failing
try:
    measure(model, prompts, None)
except Exception as error:
    told["failure"] = f"{type(error).__name__}: {error}"
(folder / f"told{rank}.json").write_text(json.dumps(told))
torch.distributed.destroy_process_group()
"""


def a_llama():
    """The same weights in every process."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4)).eval()


def some_prompts():
    draw = torch.Generator().manual_seed(4)
    return [torch.randint(3, 97, (n,), generator=draw).tolist() for n in (40, 64, 48, 33, 52)]


def measure(model, prompts, place, progress=False):
    return measure_profile(
        model,
        prompts,
        H.ObservationWindow(window=8),
        levels=(0.2, 0.5, 1.0),
        checkpoint=place,
        progress=progress,
    )


@pytest.mark.slow
def test_two_processes_share_the_prompts_and_get_what_one_gets(tmp_path, monkeypatch):
    """Started by torchrun, over gloo on the CPU."""
    if not torch.distributed.is_available():
        pytest.skip("this torch was built without torch.distributed")
    # three prompts, measured by one process, which two others then complete
    partly = calibration.PromptLosses.of
    alive = [3]

    def dying(self, prompt, advance):
        alive[0] -= 1
        if alive[0] < 0:
            raise KeyboardInterrupt
        return partly(self, prompt, advance)

    monkeypatch.setattr(calibration.PromptLosses, "of", dying)
    with pytest.raises(KeyboardInterrupt):
        measure(a_llama(), some_prompts(), tmp_path / "one.safetensors")
    monkeypatch.undo()

    (tmp_path / "script.py").write_text(SCRIPT)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *start, str(tmp_path / "script.py"), str(ROOT), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    told = [json.loads((tmp_path / f"told{rank}.json").read_text()) for rank in (0, 1)]

    alone = measure(a_llama(), some_prompts(), None)
    together = [Profile.load(tmp_path / f"profile{rank}.safetensors") for rank in (0, 1)]
    assert together[0] == together[1]
    np.testing.assert_allclose(together[0].sample_loss, alone.sample_loss, atol=1e-6, rtol=1e-6)
    # longest first, dealt in turns
    assert [each["lengths"] for each in told] == [[64, 48, 33], [52, 40]]
    assert [each["lengths after one process"] for each in told] == [[40], [33]]
    assert "measuring prompt 3 of 3: 100%" in told[0]["shown"]
    assert told[1]["shown"] == ""
    assert all("same arguments in every process" in each["other prompts"] for each in told)
    assert told[1]["failure"] == "MemoryError: no memory left"
    assert "KVBudgetError: The process of rank 1 failed: MemoryError: no" in told[0]["failure"]

    def nothing(self, prompt, advance):
        raise AssertionError("all prompts are in the files of the two processes")

    names = {path.name for path in tmp_path.glob("profile.ckpt*")}
    assert names == {f"profile.ckpt.rank{rank}.safetensors" for rank in (0, 1)}
    monkeypatch.setattr(calibration.PromptLosses, "of", nothing)
    assert measure(a_llama(), some_prompts(), tmp_path / "profile.ckpt.safetensors") == together[0]


def test_every_item_is_dealt_once():
    for size in (1, 2, 3, 7):
        dealt = [Ranks(rank, size).share(range(5)) for rank in range(size)]
        assert sorted(item for items in dealt for item in items) == list(range(5))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_alone_an_answer_is_the_only_one_and_an_error_is_ones_own():
    assert Ranks.current() == Ranks(0, 1)
    assert Ranks().gather(lambda: "answer") == ["answer"]

    def fail():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        Ranks().gather(fail)


def test_a_model_that_is_split_over_processes_is_refused(monkeypatch):
    model = a_llama()
    monkeypatch.setattr(model, "_tp_size", 2)
    monkeypatch.setattr(Ranks, "current", classmethod(lambda cls: cls(0, 2)))
    with pytest.raises(KVBudgetError, match="this one is split over 2 of them"):
        measure(model, some_prompts(), None)
