"""Two processes that divide the heads of a model among them do what one does."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import kvbudget as kvb
from kvbudget import heuristics as H
from kvbudget.runtime import budgeted, geometry_of, tensor_parallel
from kvbudget.runtime.anatomy import anatomy_of
from kvbudget.runtime.head_split import WHOLE, HeadSplit
from kvbudget.runtime.tensor_parallel import check_divisible, head_split
from tests.runtime.conftest import build_model

ROOT = Path(__file__).parents[2]
FAMILIES = ["Gemma2ForCausalLM", "LlamaForCausalLM", "Qwen3ForCausalLM"]
EXPERTS_ONLY = "GptOssForCausalLM"
PROMPT, NEW, PAD = 48, 30, 5
LIMITS = ("45%", "20%")

SCRIPT = """
import sys
from pathlib import Path

root, folder = map(Path, sys.argv[1:])
sys.path.insert(0, str(root))

import torch
from transformers import AutoModelForCausalLM

from tests.runtime.test_tensor_parallel import EXPERTS_ONLY, FAMILIES, a_single_head, decoded
from tests.runtime.test_tensor_parallel import generated, refusals

torch.set_num_threads(1)
told = {}
for architecture in (*FAMILIES, EXPERTS_ONLY):
    model = AutoModelForCausalLM.from_pretrained(folder / architecture, tp_plan="auto").eval()
    told[architecture] = {"generated": generated(model), "decoded": decoded(model)}
model = AutoModelForCausalLM.from_pretrained(folder / "LlamaForCausalLM", tp_plan="auto").eval()
told["refusals"] = refusals(model)
model = AutoModelForCausalLM.from_pretrained(folder / "single", tp_plan="auto").eval()
told["single"] = a_single_head(model)
torch.save(told, folder / f"told{torch.distributed.get_rank()}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def a_plan(geometry):
    """Uneven capacities which let one process and two of them make room at the same moments.

    All give up eight places at a time; a sliding layer holds its whole window.
    """
    shape = (geometry.layers, geometry.kv_heads)
    capacity = np.random.default_rng(3).integers(16, 36, shape)
    for layer, window in enumerate(geometry.windows):
        capacity[layer] = capacity[layer] if window is None else window
    return kvb.Plan(
        capacity_tokens=capacity,
        context_tokens=PROMPT + NEW,
        batch_size=2,
        budget_bytes=int(capacity.sum()) * geometry.bytes_per_token * 2,
        certificate=kvb.allocator.Certificate("by hand", "FEASIBLE", 1.0, 0.0, 1.0),
        geometry=geometry,
        model="",
        heuristic="critical_kv",
        heuristic_settings=(),
        measure="none",
    )


def a_limited_plan(geometry):
    """One budget for the heads of each process, far from equal."""
    draw = np.random.default_rng(3)
    importance = draw.lognormal(sigma=1.5, size=(geometry.layers, geometry.kv_heads))
    profile = kvb.Profile.from_importance(importance, geometry, heuristic="critical_kv")
    limits = tuple(
        kvb.constraints.ByteLimit(share, kv_heads=(head,)) for head, share in enumerate(LIMITS)
    )
    size = {"context_tokens": PROMPT + NEW, "batch_size": 2}
    return kvb.allocate(profile, budget="35%", constraints=limits, **size)


def a_batch():
    """Two rows, the second with padding on its left."""
    ids = torch.randint(3, 97, (2, PROMPT), generator=torch.Generator().manual_seed(0))
    seen = torch.ones_like(ids)
    seen[1, :PAD] = 0
    return {"input_ids": ids.masked_fill(seen == 0, 0), "attention_mask": seen}


def held_now(cache):
    """What every head here holds, `[layer][row][kv_head]`."""
    return [cache.kept_positions(layer) for layer in range(cache.plan.geometry.layers)]


def generated(model):
    """Generate within a budget, and tell all about it."""
    geometry = geometry_of(model)
    model.generation_config.eos_token_id = None
    with budgeted(model, a_plan(geometry)) as cache:
        found = model.generate(
            **a_batch(),
            max_new_tokens=NEW,
            do_sample=False,
            past_key_values=cache,
            return_dict_in_generate=True,
            output_logits=True,
        )
        kept = held_now(cache)
    return {
        "geometry": str(geometry),
        "split": (anatomy_of(model).split.part, anatomy_of(model).split.parts),
        "tokens": found.sequences,
        "logits": torch.stack(found.logits),
        "kept": kept,
    }


def reading():
    """Tokens of one row, and where they are read: a prompt, then one by one."""
    ids = torch.randint(3, 97, (1, PROMPT + NEW), generator=torch.Generator().manual_seed(1))
    steps = [range(PROMPT), *([at] for at in range(PROMPT, PROMPT + NEW))]
    return [ids[:, step] for step in steps]


@torch.no_grad()
def decoded(model):
    """Read tokens within limits, and tell what is held, and what follows, at every step."""
    plan, steps = a_limited_plan(geometry_of(model)), []
    with budgeted(model, plan) as cache:
        for ids in reading():
            logits = model(input_ids=ids, past_key_values=cache).logits
            steps.append({"logits": logits, "kept": held_now(cache), "bytes": cache.nbytes()})
    return steps


def refusals(model):
    """What is said where a whole model is needed."""
    prompts, told = [list(range(3, 60))], {}
    for name, call in {
        "profile": lambda: kvb.measure_profile(model, prompts, H.KeyNorm(), progress=False),
        "importance": lambda: kvb.measure_importance(
            model, prompts, H.RetrievalHeads(), progress=False
        ),
    }.items():
        try:
            told[name] = str(call())
        except kvb.UnsupportedModel as error:
            told[name] = f"refused: {error}"
    return told


def a_single_head(model):
    """What is said of a KV head that two processes would have to share."""
    try:
        return str(geometry_of(model))
    except kvb.UnsupportedModel as error:
        return f"refused: {error}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, and what two processes told of them; started by torchrun, over gloo on the CPU."""
    if not torch.distributed.is_available():
        pytest.skip("this torch was built without torch.distributed")
    place = tmp_path_factory.mktemp("divided")
    for architecture in (*FAMILIES, EXPERTS_ONLY):
        build_model(architecture).save_pretrained(place / architecture)
    one_head = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
    )
    LlamaForCausalLM(one_head).save_pretrained(place / "single")
    (place / "script.py").write_text(SCRIPT)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *start, str(place / "script.py"), str(ROOT), str(place)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return place


@pytest.fixture
def told(folder):
    """What each of the two processes told."""
    return [torch.load(folder / f"told{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FAMILIES)
def test_two_processes_generate_what_one_does(architecture, folder, told):
    model = AutoModelForCausalLM.from_pretrained(folder / architecture).eval()
    alone = generated(model)
    for part, each in enumerate(found[architecture]["generated"] for found in told):
        assert each["geometry"] == alone["geometry"]
        assert each["split"] == (part, 2)
        assert torch.equal(each["tokens"], alone["tokens"])
        torch.testing.assert_close(each["logits"], alone["logits"], atol=1e-5, rtol=1e-5)
        for mine, all_heads in zip(each["kept"], alone["kept"], strict=True):
            for (kept,), expected in zip(mine, all_heads, strict=True):
                assert torch.equal(kept, expected[part])
    everything = model.generate(**a_batch(), max_new_tokens=NEW, do_sample=False)
    assert not torch.equal(alone["tokens"], everything), "eviction must change something"


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("architecture", FAMILIES)
def test_each_keeps_within_its_limit_and_attends_to_what_is_kept(
    architecture, folder, told, oracle
):
    model = AutoModelForCausalLM.from_pretrained(folder / architecture).eval()
    geometry = geometry_of(model)
    plan, one_head = a_limited_plan(geometry), geometry.full_bytes(PROMPT + NEW, 2) // 2
    first, second = (found[architecture]["decoded"] for found in told)
    with oracle.installed(model) as everything:
        for ids, here, there in zip(reading(), first, second, strict=True):
            pairs = zip(here["kept"], there["kept"], strict=True)
            kept = [[[mine[0][0], theirs[0][0]]] for mine, theirs in pairs]
            oracle.held = kept if ids.shape[1] == 1 else []
            expected = model(input_ids=ids, past_key_values=everything).logits
            torch.testing.assert_close(here["logits"], expected, atol=1e-5, rtol=1e-5)
            assert torch.equal(here["logits"], there["logits"])
            for limit, step in zip(LIMITS, (here, there), strict=True):
                assert 0 < step["bytes"] <= one_head * float(limit.rstrip("%")) / 100
            assert here["bytes"] + there["bytes"] <= plan.budget_bytes
    assert plan.capacity_tokens[:, 0].sum() > plan.capacity_tokens[:, 1].sum() > 0
    assert len(kept[0][0][1]) < PROMPT


@pytest.mark.slow
def test_attention_that_is_not_divided_is_whole_in_every_process(folder, told):
    alone = generated(AutoModelForCausalLM.from_pretrained(folder / EXPERTS_ONLY).eval())
    for each in (found[EXPERTS_ONLY]["generated"] for found in told):
        assert each["split"] == alone["split"] == (0, 1)
        assert torch.equal(each["tokens"], alone["tokens"])
        torch.testing.assert_close(each["kept"], alone["kept"], atol=0, rtol=0)


@pytest.mark.slow
def test_what_needs_a_whole_model_is_refused_in_every_process(told):
    for each in told:
        for name, message in each["refusals"].items():
            assert message.startswith("refused: "), name
            assert "over 2 of them. Load it without tp_plan" in message
        assert "has 1 KV heads, which cannot be divided over 2 processes" in each["single"]


def test_heads_are_divided_in_their_order():
    parts = [HeadSplit(part, 3) for part in range(3)]
    heads = list(range(6))
    assert [head for part in parts for head in heads[part.here(6)]] == heads
    assert {part.whole(2) for part in parts} == {6}
    assert heads[WHOLE.here(6)] == heads
    assert WHOLE.whole(6) == 6


def test_a_model_in_one_process_is_whole(model_of):
    model = model_of("LlamaForCausalLM")
    check_divisible(model)
    assert anatomy_of(model).split == WHOLE


def a_sighting(keys, queries, is_rewritten=False):
    """What a layer did, as far as the heads tell."""
    return SimpleNamespace(
        keys=keys, call=SimpleNamespace(queries=queries), is_rewritten=is_rewritten
    )


def split_among(monkeypatch, parts, here=0):
    """What process `here` finds out, where each saw its own layers."""
    mesh = SimpleNamespace(size=lambda: len(parts), get_group=int, get_local_rank=lambda: here)
    model = SimpleNamespace(_device_mesh={"tp": mesh})
    traits = [torch.stack([tensor_parallel._traits(each) for each in seen]) for seen in parts]

    def all_gather(found, mine, group):
        assert torch.equal(mine, traits[here])
        for place, each in zip(found, traits, strict=True):
            place.copy_(each)

    monkeypatch.setattr(tensor_parallel.distributed, "all_gather", all_gather)
    return head_split(model, parts[here])


def drawn(seed, heads):
    return torch.randn(1, heads, 2, 8, generator=torch.Generator().manual_seed(seed))


def test_the_processes_find_out_whose_heads_are_where(monkeypatch):
    divided = [
        [a_sighting(drawn(9 * part + layer, 2), drawn(50 + part, 4)) for layer in range(3)]
        for part in range(2)
    ]
    assert split_among(monkeypatch, divided, 0) == HeadSplit(0, 2)
    assert split_among(monkeypatch, divided, 1) == HeadSplit(1, 2)
    copies = [[a_sighting(drawn(1, 2), drawn(2, 4))]] * 2
    assert split_among(monkeypatch, copies, 1) == WHOLE


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        # one KV head in both, and each has its own queries
        ([[a_sighting(drawn(1, 1), drawn(part, 2))] for part in (2, 3)], "share KV heads"),
        # two of three have the same ones
        ([[a_sighting(drawn(at, 1), drawn(at, 2))] for at in (1, 1, 2)], "share KV heads"),
        # one has more heads than the other
        ([[a_sighting(drawn(at, at), drawn(at, 4))] for at in (1, 2)], "share KV heads"),
        # one layer is divided, the other is not
        (
            [
                [a_sighting(drawn(1, 2), drawn(2, 4)), a_sighting(drawn(at, 2), drawn(at, 4))]
                for at in (3, 4)
            ],
            "share KV heads",
        ),
        (
            [[a_sighting(drawn(at, 2), drawn(at, 4), is_rewritten=True)] for at in (1, 2)],
            "all heads of a layer",
        ),
    ],
)
def test_heads_that_processes_would_have_to_agree_on_are_refused(parts, reason, monkeypatch):
    with pytest.raises(kvb.UnsupportedModel, match=f"to agree on the tokens.*{reason}"):
        split_among(monkeypatch, parts)
