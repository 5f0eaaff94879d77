"""A measurement that was killed goes on where it was, and never with losses of something else."""

import copy
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvbudget import BadFile
from kvbudget import heuristics as H
from kvbudget.allocator import DEFAULT_LEVELS
from kvbudget.runtime import calibration, checkpoint, measure_profile
from kvbudget.runtime.checkpoint import Checkpoint
from kvbudget.runtime.distributed import Ranks

LEVELS = (0.2, 0.5, 1.0)
IDENTITY = {"model": "a", "heuristic": "b"}


def some_prompts():
    generator = torch.Generator().manual_seed(4)
    lengths = (40, 64, 48, 33)
    return [torch.randint(3, 97, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture
def prompts():
    return some_prompts()


@pytest.fixture
def measured_prompts(monkeypatch):
    """Indices of the prompts that are really measured, in order, by their lengths."""
    lengths = []
    of = calibration.PromptLosses.of

    def noting(self, prompt, advance):
        lengths.append(len(prompt.ids))
        return of(self, prompt, advance)

    monkeypatch.setattr(calibration.PromptLosses, "of", noting)
    return lengths


def measure(model, prompts, place, heuristic=None, levels=LEVELS, kind="attention_mass", **options):
    return measure_profile(
        model,
        prompts,
        heuristic or H.KeyNorm(),
        levels=levels,
        measure=kind,
        checkpoint=place,
        progress=False,
        **options,
    )


def loss_of(number):
    return np.full((2, 3, 4), float(number))


SCRIPT = """
    import os, signal, sys
    from tests.runtime.test_checkpoint import a_llama, measure, some_prompts
    from kvbudget.runtime.prompt_losses import PromptLosses

    of, measured = PromptLosses.of, []

    def killing(self, prompt, advance):
        if len(measured) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        measured.append(prompt)
        return of(self, prompt, advance)

    PromptLosses.of = killing
    measure(a_llama(), some_prompts(), sys.argv[1])
"""


def a_llama():
    """The same weights in every process."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4)).eval()


def test_a_killed_run_goes_on_where_it_was(tmp_path, measured_prompts):
    """A real SIGKILL before the third prompt; another process measures what is missing."""
    place = tmp_path / "profile.ckpt.safetensors"
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(place)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    resumed = measure(a_llama(), some_prompts(), place)
    # the first prompt is always written at once, the second one if the disk was fast
    assert len(measured_prompts) in (2, 3)
    assert resumed == measure(a_llama(), some_prompts(), None)


def test_a_second_call_measures_nothing_again(tmp_path, model_of, prompts, measured_prompts):
    model, place = model_of("LlamaForCausalLM"), tmp_path / "profile.ckpt.safetensors"
    first = measure(model, prompts, place)
    assert sorted(measured_prompts) == [33, 40, 48, 64]
    measured_prompts.clear()
    assert measure(model, prompts, place) == first
    assert not measured_prompts
    assert measure(model, prompts, None) == first


def test_what_was_measured_before_an_error_is_kept(
    tmp_path, model_of, prompts, monkeypatch, measured_prompts
):
    model, place = model_of("LlamaForCausalLM"), tmp_path / "profile.ckpt.safetensors"
    noting = calibration.PromptLosses.of

    def failing(self, prompt, advance):
        if len(prompt.ids) == 33:
            raise KeyboardInterrupt
        return noting(self, prompt, advance)

    # so slow a disk that only the first prompt would be written on the way
    monkeypatch.setattr(checkpoint, "MOST_TIME_WRITING", 1e-9)
    monkeypatch.setattr(calibration.PromptLosses, "of", failing)
    with pytest.raises(KeyboardInterrupt):
        measure(model, prompts, place)
    monkeypatch.setattr(calibration.PromptLosses, "of", noting)
    measured_prompts.clear()
    measure(model, prompts, place)
    assert measured_prompts == [33]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"heuristic": H.ObservationWindow()}, r"heuristic \(key_norm\(.*observation_window\("),
        ({"kind": "output_error"}, r"measure \(AttentionMass\(\), here OutputError\(\)\)"),
        ({"levels": (0.2, 1.0)}, "menu of levels"),
        ({"future_tokens": 7}, "set of prompts; name another file"),
        ({"prompts": [[5] * 40]}, "set of prompts; name another file"),
        ({"architecture": "Qwen3ForCausalLM"}, "model .*Llama.* here .*Qwen3"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, model_of, prompts, change, what):
    place = tmp_path / "profile.ckpt.safetensors"
    measure(model_of("LlamaForCausalLM"), prompts, place)
    before = place.read_bytes()
    given = {"architecture": "LlamaForCausalLM", "prompts": prompts, **change}
    model = model_of(given.pop("architecture"))
    with pytest.raises(BadFile, match=f"made for another {what}"):
        measure(model, place=place, **given)
    assert place.read_bytes() == before


def test_a_model_with_other_weights_is_another_model(tmp_path, model_of, prompts):
    place = tmp_path / "profile.ckpt.safetensors"
    model = model_of("LlamaForCausalLM")
    measure(model, prompts, place)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight += 0.01
    with pytest.raises(BadFile, match="made for another set of weights"):
        measure(model, prompts, place)


def test_any_part_of_a_weight_counts(tmp_path, model_of, prompts):
    place = tmp_path / "profile.ckpt.safetensors"
    model = model_of("LlamaForCausalLM")
    measure(model, prompts, place)
    with torch.no_grad():
        model.model.layers[2].self_attn.q_proj.weight[8:] *= 2
    with pytest.raises(BadFile, match="made for another set of weights; name another file"):
        measure(model, prompts, place)


def test_a_model_that_computes_otherwise_is_another_model(tmp_path, prompts):
    place = tmp_path / "profile.ckpt.safetensors"
    model = a_llama()
    measure(model, prompts, place)
    other = copy.deepcopy(model.config)
    other.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
    turned = LlamaForCausalLM(other).eval()
    turned.load_state_dict(model.state_dict())
    with pytest.raises(BadFile, match="made for another model config; name another file"):
        measure(turned, prompts, place)


def test_a_model_that_was_saved_and_read_is_the_same_model(tmp_path, prompts, measured_prompts):
    place = tmp_path / "profile.ckpt.safetensors"
    made = a_llama()
    made.config.name_or_path = str(tmp_path / "llama")
    measure(made, prompts, place)
    made.save_pretrained(tmp_path / "llama")
    for implementation in ("eager", "sdpa"):
        read = LlamaForCausalLM.from_pretrained(
            tmp_path / "llama", attn_implementation=implementation
        )
        measure(read.eval(), prompts, place)
    assert len(measured_prompts) == len(prompts)


@pytest.mark.parametrize("changed", ["__version__", "LABEL_SAMPLES"])
def test_losses_of_another_kvbudget_are_not_mixed_in(
    tmp_path, model_of, prompts, monkeypatch, changed
):
    place = tmp_path / "profile.ckpt.safetensors"
    measure(model_of("LlamaForCausalLM"), prompts, place)
    monkeypatch.setattr(calibration, changed, 9)
    with pytest.raises(BadFile, match=r"another version of kvbudget \(.*, here .*9"):
        measure(model_of("LlamaForCausalLM"), prompts, place)


def test_it_says_how_many_prompts_are_known(tmp_path, model_of, prompts, capsys):
    place = tmp_path / "profile.ckpt.safetensors"
    said = []
    for _ in range(2):
        measure_profile(model_of("LlamaForCausalLM"), prompts, H.KeyNorm(), checkpoint=place)
        said.append(capsys.readouterr().err)
    assert "prompts are in the checkpoint" not in said[0]
    assert "4 of 4 prompts are in the checkpoint." in said[1]
    measure(model_of("LlamaForCausalLM"), prompts, place, levels=DEFAULT_LEVELS, kind=None)
    assert not capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, model_of, prompts):
    place = tmp_path / "profile.ckpt.safetensors"
    place.write_bytes(b"nothing of ours")
    with pytest.raises(BadFile, match="not a usable checkpoint"):
        measure(model_of("LlamaForCausalLM"), prompts, place)
    measure(model_of("LlamaForCausalLM"), prompts, None).save(place)
    with pytest.raises(BadFile, match="not a usable checkpoint"):
        measure(model_of("LlamaForCausalLM"), prompts, place)


def test_a_folder_that_does_not_exist_is_found_before_anything_is_measured(
    tmp_path, model_of, prompts, measured_prompts
):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "no"))):
        measure(model_of("LlamaForCausalLM"), prompts, tmp_path / "no" / "profile.ckpt")
    assert not measured_prompts


def test_losses_of_several_processes_are_read_by_any_number_of_them(tmp_path):
    place = tmp_path / "a[1].safetensors"
    for rank, prompts in ((0, (4, 0)), (1, (1,)), (2, (7,))):
        with Checkpoint(place, IDENTITY, Ranks(rank, 3)) as saved:
            for prompt in prompts:
                saved.add(prompt, loss_of(prompt))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"a[1].rank{rank}.safetensors" for rank in range(3)]
    for ranks in (Ranks(), Ranks(1, 2), Ranks(3, 4)):
        found = Checkpoint(place, IDENTITY, ranks).read()
        assert sorted(found) == [0, 1, 4, 7]
        assert all(np.array_equal(loss, loss_of(prompt)) for prompt, loss in found.items())
    (tmp_path / "a[1].rank.safetensors").write_bytes(b"a ranking of somebody else's")
    (tmp_path / "a[1].ranking.safetensors").write_bytes(b"a ranking of somebody else's")
    assert len(Checkpoint(place, IDENTITY).read()) == 4
    with pytest.raises(BadFile, match=r"rank0.*another heuristic \(b, here c\); name another file"):
        Checkpoint(place, {**IDENTITY, "heuristic": "c"}).read()


def test_writing_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    """A clock of our own: each write takes 1 s and each prompt 5 s."""
    now, writes = [0.0], []
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    write_whole = checkpoint.write_whole

    def slow(path, content):
        writes.append(now[0])
        now[0] += 1
        write_whole(path, content)

    monkeypatch.setattr(checkpoint, "write_whole", slow)
    with Checkpoint(tmp_path / "a", IDENTITY) as saved:
        for prompt in range(9):
            now[0] += 5
            saved.add(prompt, loss_of(prompt))
    assert writes == [5, 26, 47]  # the first at once, then every 20 s, and the last at the end
    assert sorted(Checkpoint(tmp_path / "a", IDENTITY).read()) == list(range(9))


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoint(None, IDENTITY) as saved:
        saved.add(0, loss_of(0))
    assert saved.read() == {}
    assert not list(tmp_path.iterdir())
