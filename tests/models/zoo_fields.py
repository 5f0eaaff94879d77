"""Fields of tiny configurations: by name for every class, and what single classes need besides.

`...` as a value leaves a field of `SMALL` as the class has it; a dictionary for a part of a
configuration is merged into that part.
"""

from typing import Any

WITH_PICTURES = (
    "Gemma3ForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
)

PICTURE_ID = 96  # the token of a picture, in those that are to see one

DECODER_OF = {  # classes whose own configuration is that of a larger model
    "MusicgenForCausalLM": "MusicgenDecoderConfig",
    "MusicgenMelodyForCausalLM": "MusicgenMelodyDecoderConfig",
}

BROKEN = ("Gemma4AssistantForCausalLM",)  # transformers itself cannot build these

TOWER_OF = {"Gemma3nForConditionalGeneration": "SiglipVisionConfig"}  # its own one needs timm

LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "decoder_layers",
    "encoder_layers",  # the cache of a decoder alone is sized by it
    "num_decoder_layers",
    "num_encoder_layers",
    "num_blocks",
)
HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "attention_heads",
    "decoder_attention_heads",
    "encoder_attention_heads",
    "num_decoder_attention_heads",
    "num_encoder_attention_heads",
    "swa_num_attention_heads",
)
KV_HEADS = (
    "num_key_value_heads",
    "num_kv_heads",
    "num_query_groups",
    "swa_num_key_value_heads",
)
HIDDEN = (
    "hidden_size",
    "n_embd",
    "d_model",
    "emb_dim",
    "embed_dim",
    "embedding_dim",
    "embedding_size",
    "input_embedding_size",
    "output_embedding_size",
    "word_embed_proj_dim",
    "lru_width",
    "attention_hidden_size",
    "out_hidden_size",
    "hidden_size_global",
)
INNER = (
    "intermediate_size",
    "intermediate_size_mlp",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "shared_experts_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "dense_intermediate_size",
    "ffn_dim",
    "decoder_ffn_dim",
    "encoder_ffn_dim",
    "ffn_hidden_size",
    "expert_ffn_hidden_size",
    "n_inner",
    "dim_ff",
    "dff",
    "feed_forward_size",
)
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts")
WINDOWS = (
    "sliding_window",
    "sliding_window_size",
    "attention_window_size",
    "local_attention",
    "window_size",
)

SMALL: dict[str, Any] = {
    **dict.fromkeys(LAYERS, 4),
    **dict.fromkeys(HEADS, 4),
    **dict.fromkeys(KV_HEADS, 2),
    **dict.fromkeys(HIDDEN, 64),
    **dict.fromkeys(INNER, 48),
    **dict.fromkeys(POSITIONS, 512),
    **dict.fromkeys(EXPERTS, 4),
    **dict.fromkeys(CHOSEN, 2),
    **dict.fromkeys(WINDOWS, 20),
    "is_decoder": True,
    "use_cache": True,
    "vocab_size": 97,
    "head_dim": 16,
    "swa_head_dim": 16,
    "attention_head_dim": 16,
    "rotary_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_shared_experts": 1,
    "n_shared_experts": 1,
    "n_group": 2,
    "num_expert_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "use_sliding_window": True,
    "max_window_layers": 2,
    # latent attention
    "q_lora_rank": 24,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    # sparse attention
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 16,
    "index_block_size": 8,
    "index_topk_blocks": 2,
    "query_pre_attn_scalar": 16,
    # state layers
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "mamba_headdim": 16,
    "mamba_d_ssm": 128,
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
    "mamba_chunk_size": 8,
    "n_mamba_heads": 8,
    "n_groups": 2,
    "state_size": 8,
    "ssm_state_size": 8,
    "time_step_rank": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    # hyper connections
    "hc_mult": 2,
    "hc_lowrank": 8,
    # pictures
    "depth": 2,
    "image_size": 32,
    "patch_size": 16,
}

SCALED = {"attention_multiplier": 0.25}
LATENT = {"head_dim": 8, "num_key_value_heads": 4}
STATE_THEN_ATTENTION = ["linear_attention", "full_attention"] * 2
STATE_AND_ATTENTION = {
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "attention_hidden_size": 128,
    "attention_head_dim": 32,
    "num_key_value_heads": 4,
}
MERGING = {"patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}
SLIDING_THEN_FULL = ["sliding_attention", "full_attention"] * 2
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
THREE_AXES = {**ROPE, "mrope_section": [2, 3, 3]}
HALF_TURNED = {**ROPE, "partial_rotary_factor": 0.5}
PER_LAYER_INPUT = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 97}
SHARED = {
    "num_hidden_layers": 5,
    "layer_types": [*SLIDING_THEN_FULL[:2], "sliding_attention", *SLIDING_THEN_FULL[:2]],
    "num_kv_shared_layers": 2,
}
WIDE_WHEN_FULL = {1: {"head_dim": 32}, 4: {"head_dim": 32}}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "AXK1Config": LATENT,
    "AXK2Config": {**LATENT, "gated_norm_rank": 4},
    "BailingHybridConfig": LATENT,
    "BambaConfig": {"attn_layer_indices": [1, 3]},
    "BltConfig": {"encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_size": [3, 4]},
    "CohereCompassTextConfig": {
        "layer_types": SLIDING_THEN_FULL,
        "rope_parameters": dict.fromkeys(SLIDING_THEN_FULL, ROPE),
    },
    "CpmAntConfig": {"dim_head": 16, "prompt_length": 4, "num_heads": 4},
    "DbrxConfig": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {
            "hidden_size": 64,
            "ffn_hidden_size": 48,
            "moe_num_experts": 4,
            "moe_top_k": 2,
        },
    },
    "DeepseekV2Config": LATENT,
    "DeepseekV32Config": LATENT,
    "DeepseekV3Config": LATENT,
    "DeepseekV4Config": {
        "num_key_value_heads": 1,
        "head_dim": 64,
        "o_groups": 2,
        "o_lora_rank": 8,
        "index_topk": 4,
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    },
    "DogeConfig": {"keep_window_size": 16},
    "Dots1Config": {"layer_types": SLIDING_THEN_FULL},
    "Dots3NoteTextConfig": {
        "num_key_value_heads": 4,
        "head_dim": 24,
        "per_layer_config": {
            1: {"num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 32},
            3: {"num_attention_heads": 2, "num_key_value_heads": 2, "kv_lora_rank": 32},
        },
    },
    "Gemma2Config": {"attn_logit_softcapping": 2.0},
    "Gemma3Config": {"image_token_index": PICTURE_ID, "mm_tokens_per_image": 4},
    "Gemma3nTextConfig": {
        **SHARED,
        **PER_LAYER_INPUT,
        "intermediate_size": [48] * 5,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0, 0.0],
        "laurel_rank": 8,
    },
    "Gemma4AssistantConfig": {
        "backbone_hidden_size": 64,
        "text_config": {
            **{key: SMALL[key] for key in (*HEADS[:1], *KV_HEADS[:1], *HIDDEN[:1], *INNER[:1])},
            **SHARED,
            "vocab_size": 97,
            "num_kv_shared_layers": 5,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        },
    },
    "Gemma4TextConfig": {**SHARED, **PER_LAYER_INPUT, "per_layer_config": WIDE_WHEN_FULL},
    "Gemma4UnifiedTextConfig": {
        **SHARED,
        "attention_k_eq_v": True,
        "per_layer_config": WIDE_WHEN_FULL,
    },
    "Glm4MoeLiteConfig": LATENT,
    "GlmMoeDsaConfig": LATENT,
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 2]]},
    "GraniteConfig": SCALED,
    "GraniteMoeConfig": SCALED,
    "GraniteMoeSWAConfig": SCALED,
    "GraniteMoeSharedConfig": SCALED,
    "GraniteSWAConfig": SCALED,
    "GraniteMoeHybridConfig": {**SCALED, "layer_types": STATE_THEN_ATTENTION},
    "HYV4Config": LATENT,
    "Inkling2TextConfig": {"d_rel": 8, "rel_extent": 32, "n_layers_per_attn_res_block": 2},
    "InklingTextConfig": {
        "d_rel": 8,
        "rel_extent": 32,
        "swa_num_key_value_heads": 4,
        "logits_mup_width_multiplier": 1.0,
    },
    "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 0},
    "JetMoeConfig": {"kv_channels": 16},
    "KimiLinearConfig": LATENT,
    "LagunaConfig": {
        "layer_types": SLIDING_THEN_FULL,
        "num_attention_heads_per_layer": [4, 8, 4, 8],
    },
    "Lfm2Config": {"layer_types": ["conv", "full_attention"] * 2},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "Llama4TextConfig": {
        "attention_chunk_size": 16,
        "floor_scale": 16,
        "moe_layers": [1, 3],
        "num_experts_per_tok": 1,
    },
    "LlavaConfig": {"image_token_index": PICTURE_ID},
    "LongcatFlashConfig": {**LATENT, "num_layers": 2, "zero_expert_num": 2},
    "Mamba2Config": {"head_dim": 32},
    "MellumConfig": {"layer_types": SLIDING_THEN_FULL},
    "MiMoV2FlashConfig": {
        "rope_parameters": dict.fromkeys(SLIDING_THEN_FULL, HALF_TURNED),
    },
    "MiniCPM3Config": LATENT,
    "MiniMaxM3VLTextConfig": {"layer_types": ["full_attention", "minimax_m3_sparse"] * 2},
    "NemotronHConfig": {
        "layers_block_type": ["linear_attention", "full_attention", "moe", "full_attention", "mlp"],
    },
    "Qwen2Config": {"layer_types": SLIDING_THEN_FULL},
    "Qwen2MoeConfig": {"layer_types": SLIDING_THEN_FULL},
    "Qwen2VLConfig": {"image_token_id": PICTURE_ID},
    "Qwen2VLVisionConfig": MERGING,
    "Qwen2_5_VLConfig": {"image_token_id": PICTURE_ID},
    "Qwen2_5_VLVisionConfig": {**MERGING, "fullatt_block_indexes": [1]},
    "Qwen3VLConfig": {"image_token_id": PICTURE_ID},
    "Qwen3VLVisionConfig": {**MERGING, "deepstack_visual_indexes": [0, 1]},
    "Qwen2VLTextConfig": {"rope_parameters": THREE_AXES, "layer_types": SLIDING_THEN_FULL},
    "Qwen2_5_VLTextConfig": {"rope_parameters": THREE_AXES, "layer_types": SLIDING_THEN_FULL},
    "Qwen3Config": {"layer_types": SLIDING_THEN_FULL},
    "Qwen4ExpTextConfig": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "RecurrentGemmaConfig": {"num_hidden_layers": 6},
    "ReformerConfig": {
        "attn_layers": ["local", "lsh"] * 2,
        "attention_head_size": 16,
        "axial_pos_shape": [8, 64],
        "axial_pos_embds_dim": [32, 32],
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
        "hash_seed": 0,
    },
    "RoCBertConfig": {
        "pronunciation_vocab_size": 20,
        "pronunciation_embed_dim": 16,
        "shape_vocab_size": 20,
        "shape_embed_dim": 16,
    },
    "xLSTMConfig": {"qk_dim_factor": 1.0},
    "XmodConfig": {"default_language": "en_XX"},
    "SiglipVisionConfig": {"rms_norm_eps": 1e-6, "vocab_size": 8, "vocab_offset": 89},
    "SmolLM3Config": {"layer_types": SLIDING_THEN_FULL},
    "VaultGemmaConfig": {"attn_logit_softcapping": 2.0},
    "YoutuConfig": LATENT,
    "ZambaConfig": {**STATE_AND_ATTENTION, "n_mamba_heads": 2},
    "Zamba2Config": {**STATE_AND_ATTENTION, "adapter_rank": 4},
    "ZayaConfig": {
        "layer_types": ["hybrid", "hybrid_sliding"] * 2,
        "num_experts_per_tok": 1,
        "router_hidden_size": 16,
    },
}
