"""Models that see pictures: their text part lives within a plan, their vision part as ever."""

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import pad
from transformers import DynamicCache

from kvbudget.heuristics import ObservationWindow
from kvbudget.runtime import budgeted, geometry_of, measure_profile
from kvbudget.runtime.hf import attention_switched

PICTURE, START = 90, 91  # token ids of a place of a picture, and of its beginning
PLACES, PROMPT, NEW = 4, 30, 16
TEXT = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
AXES = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
PATCHES = {"depth": 2, "num_heads": 4, "patch_size": 16, "spatial_merge_size": 2}
TOWER = {
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
}
QWEN = {
    "image_token_id": PICTURE,
    "video_token_id": 93,
    "vision_start_token_id": START,
    "vision_end_token_id": 92,
}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
MODELS = {
    "Gemma3ForConditionalGeneration": (
        "Gemma3Config",
        {
            "text_config": {**TEXT, "sliding_window": 12, "layer_types": SLIDING},
            "vision_config": {**TOWER, "vision_use_head": False},
            "mm_tokens_per_image": PLACES,
            "image_token_index": PICTURE,
        },
    ),
    "LlavaForConditionalGeneration": (
        "LlavaConfig",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**TOWER, "model_type": "clip_vision_model"},
            "image_token_index": PICTURE,
        },
    ),
    "Qwen2VLForConditionalGeneration": (
        "Qwen2VLConfig",
        {
            "text_config": {**TEXT, **AXES},
            "vision_config": {**PATCHES, "embed_dim": 64, "hidden_size": 64},
            **QWEN,
        },
    ),
    "Qwen2_5_VLForConditionalGeneration": (
        "Qwen2_5_VLConfig",
        {
            "text_config": {**TEXT, **AXES},
            "vision_config": {
                **PATCHES,
                "hidden_size": 64,
                "out_hidden_size": 64,
                "intermediate_size": 48,
                "window_size": 32,
                "fullatt_block_indexes": [1],
            },
            **QWEN,
        },
    ),
    "Qwen3VLForConditionalGeneration": (
        "Qwen3VLConfig",
        {
            "text_config": {**TEXT, **AXES},
            "vision_config": {
                **PATCHES,
                "hidden_size": 64,
                "out_hidden_size": 64,
                "intermediate_size": 48,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            **QWEN,
        },
    ),
}


def build(architecture, implementation="eager"):
    """A random model whose attention is far from uniform."""
    config_name, fields = MODELS[architecture]
    config = getattr(transformers, config_name)(**fields)
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture)
    model = model_class._from_config(config, attn_implementation=implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                torch.nn.init.normal_(parameter, std=0.15)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


@pytest.fixture(params=sorted(MODELS))
def model(request):
    """Each model in turn."""
    return build(request.param)


def question(model, seed=3, prompt=PROMPT):
    """A prompt with a picture in it, as a processor makes it."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 89, (1, prompt), generator=generator)
    ids[0, 6] = START
    ids[0, 7 : 7 + PLACES] = PICTURE
    is_picture = (ids == PICTURE).long()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "Qwen" in type(model).__name__:
        pixels = torch.randn(16, 3 * 2 * 16 * 16, generator=generator)
        grid = torch.tensor([[1, 4, 4]])
        return {
            **inputs,
            "pixel_values": pixels,
            "image_grid_thw": grid,
            "mm_token_type_ids": is_picture,
        }
    pixels = torch.randn(1, 3, 32, 32, generator=generator)
    if "Gemma3" in type(model).__name__:
        inputs["token_type_ids"] = is_picture
    return {**inputs, "pixel_values": pixels}


@pytest.fixture
def everything(model, plan_for):
    """A plan with room for all tokens that the tests read and write."""
    geometry, total = geometry_of(model), 3 * PROMPT + 2 * NEW
    capacity = [[min(total, w or total)] * geometry.kv_heads for w in geometry.windows]
    return plan_for(geometry, np.array(capacity), total, 2, geometry.full_bytes(total, 2))


HOW = [{}, {"num_beams": 2}, {"do_sample": True, "top_k": 20}]


@pytest.mark.parametrize("how", HOW, ids=["greedy", "beams", "sampling"])
def test_keeping_everything_gives_the_tokens_of_plain_generate(model, everything, how):
    options = {"do_sample": False, "max_new_tokens": NEW, **how, **question(model)}
    torch.manual_seed(11)
    plain = model.generate(**options)
    torch.manual_seed(11)
    with budgeted(model, everything) as cache:
        ours = model.generate(**options, past_key_values=cache)
        assert 0 < cache.nbytes() <= everything.budget_bytes
    assert torch.equal(plain, ours)


@pytest.mark.parametrize("chunk", [8, 20])
def test_prompts_may_be_read_in_chunks(model, everything, chunk):
    """The picture has places 7 to 10."""
    options = {"do_sample": False, "max_new_tokens": NEW, "prefill_chunk_size": chunk}
    inputs = question(model)
    with budgeted(model, everything) as cache:
        if chunk == 8 and "Gemma3" in type(model).__name__:
            with pytest.raises(ValueError, match="hold every picture whole"):
                model.generate(**inputs, **options, past_key_values=cache)
            return
        ours = model.generate(**inputs, **options, past_key_values=cache)
    assert torch.equal(model.generate(**inputs, **options), ours)


def test_padded_rows_are_served_with_their_pictures(model, everything):
    first, second = question(model), question(model, seed=4)
    ahead = 5
    joined = {}
    for name, tensor in first.items():
        other = second[name]
        if name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
            tensor, other = pad(tensor, (ahead, 0)), torch.cat([other[:, :ahead], other], 1)
            if name == "input_ids":
                other[:, :ahead] = 7
        joined[name] = torch.cat([tensor, other])
    options = {"do_sample": False, "max_new_tokens": NEW, **joined}
    plain = model.generate(**options)
    with budgeted(model, everything) as cache:
        ours = model.generate(**options, past_key_values=cache)
    assert torch.equal(plain, ours)


def test_the_picture_matters(model):
    asked, blind = question(model), question(model)
    blind["pixel_values"] = torch.zeros_like(blind["pixel_values"])
    with torch.inference_mode():
        difference = model(**asked).logits - model(**blind).logits
    assert difference.abs().max() > 1e-2


def test_text_alone_is_served(model, everything):
    ids = question(model)["input_ids"][:, 11:]
    options = {"do_sample": False, "max_new_tokens": NEW}
    with budgeted(model, everything) as cache:
        ours = model.generate(ids, **options, past_key_values=cache)
    assert torch.equal(model.generate(ids, **options), ours)


def test_a_second_turn_goes_on_behind_the_picture(model, everything):
    asked, options = question(model), {"do_sample": False, "max_new_tokens": NEW}
    more = torch.randint(3, 89, (1, 9), generator=torch.Generator().manual_seed(8))
    with budgeted(model, everything) as cache:
        first = model.generate(**asked, **options, past_key_values=cache)
        prompt = longer(asked, torch.cat([first, more], 1))
        # the picture was read in the first turn
        text = {name: prompt[name] for name in ("input_ids", "attention_mask")}
        second = model.generate(**text, **options, past_key_values=cache)
    assert torch.equal(model.generate(**prompt, **options), second)


def longer(asked, ids):
    """The same question, with more text behind it."""
    grown = {**asked, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in asked:
            behind = ids.shape[1] - asked[name].shape[1]
            grown[name] = pad(asked[name], (0, behind))
    return grown


@torch.inference_mode()
def test_a_picture_in_a_later_turn_is_read_or_refused(model, everything):
    """Gemma lets the places of a picture see each other, which held tokens cannot follow."""
    text, asked = question(model)["input_ids"][:, 11:], question(model, seed=5)
    del asked["attention_mask"]
    if "token_type_ids" in asked:  # of all columns
        asked["token_type_ids"] = pad(asked["token_type_ids"], (text.shape[1], 0))
    with budgeted(model, everything) as cache:
        model(input_ids=text, past_key_values=cache)
        if "token_type_ids" in asked:
            with pytest.raises(ValueError, match="hold every picture whole"):
                model(**asked, past_key_values=cache)
            return
        ours = model(**asked, past_key_values=cache).logits
    fresh = build(type(model).__name__)  # a model remembers how far the last picture moved places
    own = DynamicCache(config=fresh.config.text_config)
    fresh(input_ids=text, past_key_values=own)
    theirs = fresh(**asked, past_key_values=own).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_evicted_columns_are_missed_and_nothing_else(model, plan_for, random_capacity, oracle):
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 8, 20), PROMPT)
    asked, later = question(model), torch.tensor([[40], [50], [60], [70], [80], [40], [30]])
    with budgeted(model, plan, ObservationWindow(window=8, kernel=3)) as cache:
        ours, held = [model(**asked, past_key_values=cache).logits], [[]]
        for token in later:
            ours.append(model(input_ids=token[None], past_key_values=cache).logits)
            held.append([cache.kept_positions(layer) for layer in range(geometry.layers)])
    with oracle.installed(model.get_decoder()) as everything:
        theirs = [model(**asked, past_key_values=everything).logits]
        for token, columns in zip(later, held[1:], strict=True):
            oracle.held = columns
            theirs.append(model(input_ids=token[None], past_key_values=everything).logits)
    torch.testing.assert_close(torch.cat(ours, 1), torch.cat(theirs, 1), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_eviction_holds_the_bytes(model, plan_for, random_capacity):
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 8, 20), PROMPT)
    asked = question(model)
    with budgeted(model, plan, ObservationWindow(window=8, kernel=3)) as cache:
        model.generate(**asked, do_sample=False, max_new_tokens=40, past_key_values=cache)
        assert cache.nbytes() <= plan.budget_bytes
        assert cache.get_seq_length() == PROMPT + 39
    assert plan.budget_bytes < geometry.full_bytes(PROMPT + 39, 1)


@torch.inference_mode()
def test_the_vision_part_keeps_its_attention(model):
    asked = question(model)
    parts = [model.config, model.config.vision_config, model.config.text_config]
    before = [part._attn_implementation for part in parts]
    with attention_switched(model):
        inside = [part._attn_implementation for part in parts]
    assert inside == [before[0], before[1], "kvbudget"]
    assert [part._attn_implementation for part in parts] == before
    plain = model(**asked).logits
    with attention_switched(model):
        torch.testing.assert_close(model(**asked).logits, plain, atol=1e-5, rtol=0)


def test_parts_with_attentions_of_their_own_get_them_back(model):
    architecture = type(model).__name__
    mixed = build(architecture, {"text_config": "sdpa", "vision_config": "eager"})
    with attention_switched(mixed):
        assert mixed.config.text_config._attn_implementation == "kvbudget"
    assert mixed.config.text_config._attn_implementation == "sdpa"
    assert mixed.config.vision_config._attn_implementation == "eager"


def test_a_profile_can_be_measured_with_text(model):
    prompts = torch.randint(3, 89, (2, 48), generator=torch.Generator().manual_seed(4)).tolist()
    profile = measure_profile(
        model, prompts, ObservationWindow(), levels=(0.25, 1.0), progress=False
    )
    assert profile.geometry == geometry_of(model)
    assert (profile.loss[..., 0] > 0).any()
    assert not profile.loss[..., 1].any()
