"""The solver and the heuristic that CONTRIBUTING.md writes work as they stand there."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import kvbudget as kvb
from kvbudget.allocator import Choice, Problem, Solver
from kvbudget.heuristics import LayerView, TokenHeuristic, register, registration_scope
from kvbudget.testing import check_heuristic, check_solver

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def block(number: int) -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    return str(blocks[number])


def test_its_solver_passes_the_checks() -> None:
    names = {"dataclass": dataclass, "np": np, "Choice": Choice, "Problem": Problem}
    exec(block(0), {**names, "Solver": Solver}, found := {})
    solver = found["FirstCome"]()
    check_solver(solver)
    problem = Problem([[5.0, 0.0], [9.0, 0.0]], [[1, 2], [1, 2]], 3)
    assert solver.choose(problem).levels.tolist() == [1, 0]


def test_its_heuristic_passes_the_checks_and_is_measured_and_run_by_its_name() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    tokens = torch.randint(3, 64, (1, 120))
    names = {"dataclass": dataclass, "register": register, "LayerView": LayerView}
    with registration_scope():
        exec(block(1), {**names, "TokenHeuristic": TokenHeuristic, "Tensor": Tensor}, found := {})
        mine = found["ValueMassOfMine"]
        check_heuristic(mine())
        profile = kvb.measure_profile(model, tokens.tolist(), mine(window=8), progress=False)
        plan = kvb.allocate(profile, budget="30%", context_tokens=120)
        with kvb.budgeted(model, plan) as cache:
            model.generate(tokens, past_key_values=cache, max_new_tokens=5)
            assert cache.nbytes() <= plan.budget_bytes < profile.geometry.full_bytes(120) / 3
        assert plan.heuristic == "value_mass_of_mine"
        assert cache.stack.layers[0].heuristic == mine(window=8)
