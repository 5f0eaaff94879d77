"""Rows tell what they were measured with."""

import copy
import subprocess
from pathlib import Path

import torch

import kvbudget as kvb
from kvbudget.evaluation import origin
from kvbudget.evaluation.origin import Origin, commit, weights_fingerprint


def test_another_weight_gives_another_fingerprint_and_the_same_ones_the_same(shipped):
    model = shipped[0]
    other = copy.deepcopy(model)
    assert weights_fingerprint(other) == weights_fingerprint(model)
    with torch.no_grad():
        other.lm_head.weight[-1, -1] += 1
    assert weights_fingerprint(other) != weights_fingerprint(model)
    assert len(weights_fingerprint(model)) == 16


def test_another_type_gives_another_fingerprint(shipped):
    half = copy.deepcopy(shipped[0]).to(torch.bfloat16)
    assert weights_fingerprint(half) != weights_fingerprint(shipped[0])


def test_versions_are_those_in_use(shipped):
    import transformers

    found = Origin.of(shipped[0], "mine")
    assert (found.model, found.kvbudget) == ("mine", kvb.__version__)
    assert (found.torch, found.transformers) == (torch.__version__, transformers.__version__)
    assert "6 layers x 4 KV heads" in found.geometry
    assert Origin.of(shipped[0]).model == "the reference model"
    nameless = copy.deepcopy(shipped[0])
    nameless.config.name_or_path = ""
    assert Origin.of(nameless).model == "LlamaForCausalLM"


def test_a_commit_is_named_only_where_the_package_lies_in_a_checkout(tmp_path, monkeypatch):
    package = tmp_path / "src" / "kvbudget"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(kvb, "__file__", str(package / "__init__.py"))
    assert commit() is None
    (tmp_path / "pyproject.toml").touch()
    assert commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert commit() is None
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert head.stdout.startswith(commit())
    (tmp_path / "pyproject.toml").write_text("changed")
    assert commit().endswith("-dirty")


def test_the_machine_is_told():
    assert f"{torch.get_num_threads()} of " in origin.machine()
    assert Path(origin.__file__).is_file()
