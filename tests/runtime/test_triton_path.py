"""A whole budgeted life on the Triton programs, which the interpreter runs where there is no GPU.

In a process of its own: a kernel is bound to the interpreter when triton is imported.
"""

import os
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from kvbudget import heuristics
from kvbudget.runtime import budgeted, geometry_of

IN_INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
OPS = ("ragged_attention", "attention_sums", "select_top", "gather_kept", "move_rows")
PROMPT, TOKENS = 30, 14


@pytest.mark.skipif(IN_INTERPRETER, reason="this is that process")
def test_the_triton_path_lives_as_the_other_one():
    pytest.importorskip("triton", reason="triton is not installed (it is made for Linux only)")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(LIVES)} passed" in done.stdout


LIVES = [(torch.inference_mode, "observation_window"), (torch.no_grad, "heavy_hitter")]


@pytest.fixture
def on_triton(monkeypatch):
    """Sends every operation to its Triton programs, as a GPU would; counts the calls of each."""
    calls = dict.fromkeys(OPS, 0)

    def counted(name, run):
        def call(*args, **kwargs):
            calls[name] += 1
            return run(*args, **kwargs)

        return call

    def on_triton():
        for name in OPS:
            reference = import_module(f"kvbudget.kernels.{name}.reference")
            kernel = import_module(f"kvbudget.kernels.{name}.triton_kernel")
            monkeypatch.setattr(reference, name, counted(name, getattr(kernel, name)))
        return calls

    return on_triton


def life(model, plan, heuristic):
    """Logits of a prompt, decoded tokens, a short block and a rollback, and what is held."""
    tokens = torch.randint(3, 90, (1, 80), generator=torch.Generator().manual_seed(0))
    with budgeted(model, plan, heuristics.get(heuristic)()) as cache:
        logits = [model(tokens[:, :PROMPT], past_key_values=cache).logits[:, -1]]
        for at in range(PROMPT, PROMPT + TOKENS):
            logits.append(model(tokens[:, at : at + 1], past_key_values=cache).logits[:, -1])
        logits.append(model(tokens[:, 50:54], past_key_values=cache).logits[:, -1])
        cache.crop(-2)
        logits.append(model(tokens[:, 54:56], past_key_values=cache).logits[:, -1])
        held = [cache.kept_positions(layer) for layer in range(model.config.num_hidden_layers)]
    return torch.cat(logits), held


@pytest.mark.skipif(not IN_INTERPRETER, reason="runs in a process with Triton's interpreter")
@pytest.mark.parametrize(("mode", "heuristic"), LIVES)
def test_a_life(model_of, plan_for, random_capacity, on_triton, mode, heuristic):
    model = model_of("LlamaForCausalLM")
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 10, 24), 60)
    with mode():
        wanted, wanted_held = life(model, plan, heuristic)
        calls = on_triton()
        got, held = life(model, plan, heuristic)
    assert all(calls.values()), calls
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    for mine, its in zip(held, wanted_held, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine[0], its[0], strict=True))
