"""What the tests of the command line share: small models on disk, a profile, a plan, a runner."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget import cli


@dataclass(frozen=True, slots=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str


Runner = Callable[..., Run]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Runner:
    """Run the command line in this process, in an empty folder."""

    def call(*arguments: object) -> Run:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["kvbudget", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return Run(int(end.value.code or 0), out, err)

    return call


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random models: `llama`, `long`, `other` (more layers), `untold` (no words), `mamba`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    sizes = {
        "vocab_size": 2048,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 4,
    }
    _, tokenizer = kvb.reference_model()
    shapes = {"llama": (2, 512), "long": (2, 2048), "other": (3, 512), "untold": (2, 512)}
    for name, (layers, positions) in shapes.items():
        config = LlamaConfig(
            **sizes,
            num_hidden_layers=layers,
            num_key_value_heads=2,
            max_position_embeddings=positions,
        )
        LlamaForCausalLM(config).save_pretrained(folder / name)
        if name != "untold":
            tokenizer.save_pretrained(folder / name)
    MambaForCausalLM(
        MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)
    ).save_pretrained(folder / "mamba")
    return folder


@pytest.fixture(scope="session")
def geometry() -> kvb.Geometry:
    """The caches of the tiny model `llama`."""
    return kvb.Geometry("LlamaForCausalLM", 2, 2, 8, 8, "float32", (None, None))


@pytest.fixture(scope="session")
def profile(geometry: kvb.Geometry) -> kvb.Profile:
    """A profile of the tiny model in which later caches lose more."""
    importance = np.array([[1.0, 2.0], [4.0, 8.0]])
    return kvb.Profile.from_importance(
        importance,
        geometry,
        model="tiny",
        heuristic="observation_window",
        heuristic_settings=(("window", 32), ("kernel", 7)),
    )


@pytest.fixture(scope="session")
def profile_file(profile: kvb.Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("profile") / "profile.safetensors"
    profile.save(path)
    return path


@pytest.fixture(scope="session")
def plan_file(profile: kvb.Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the tiny model for a quarter of 200 tokens."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    kvb.allocate(profile, budget="25%", context_tokens=200).save(path)
    return path
