"""Language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from tests.families.catalog import SIZES, TRANSFORMER, Family
from tests.families.tokenizer import VOCABULARY, make_tokenizer, texts

ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TOKENS = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, **ENDS}
GROUPED = {**SIZES, "num_key_value_heads": 2}  # two query heads to a key head

PARALLEL = tuple(name for name in TRANSFORMER if not name.endswith("resid_mid"))
EXPERTS = (*(name for name in TRANSFORMER if not name.endswith("mlp_act")), "blocks.1.router")
MIXER = ("blocks.1.resid_pre", "blocks.1.mixer_out", "blocks.1.resid_post")

NO_NORM = {"final_norm": "no norm follows the last block"}
NO_HEAD = {"logits": "loaded without a head"}
NO_MID = {"blocks.1.resid_mid": "attention and MLP both read the block's input"}
NO_ACT = {"blocks.1.mlp_act": "every expert has a hidden layer of its own"}


def without_attention(mixer: str) -> dict[str, str]:
    """What a block lacks whose positions are mixed by something else, and which has no MLP."""
    return {
        **{f"blocks.1.{name}": f"no attention: {mixer} mixes the positions" for name in ("q", "k", "v", "z", "attn_out")},
        "blocks.1.resid_mid": "one branch only",
        "blocks.1.mlp_act": f"{mixer} is all that this block adds",
        "blocks.1.mlp_out": f"{mixer} is all that this block adds",
    }


def make(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """A maker of a transformers class with a configuration."""

    def build() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return build


def _without_cache(module: nn.Module) -> Any:
    """State spaces take another path, with other rounding, when they are to keep their state."""
    return module(input_ids=make_tokenizer(special=False)(few()[0], return_tensors="pt")["input_ids"], use_cache=False)


def few() -> list[str]:
    """Texts of six lengths, not in their order."""
    return texts((8, 1, 20, 3, 15, 11))


def family(
    name: str,
    model: str,
    config: str,
    settings: Mapping[str, Any],
    *,
    sites: tuple[str, ...] = TRANSFORMER,
    lacks: Mapping[str, str] | None = None,
    special: bool = False,
    note: str = "",
    cached: bool = True,
) -> Family:
    """A family that reads texts: the sites of a block, and whichever ends are not among those that it lacks."""
    lacks = lacks or {}
    ends = tuple(end for end in ("final_norm", "logits") if end not in lacks)
    return Family(
        name,
        make(model, config, **settings),
        few,
        load={"tokenizer": make_tokenizer(special=special)},
        sites=("embed", *sites, *ends),
        lacks=lacks,
        note=note,
        by_hand=None if cached else _without_cache,
    )


DECODERS = [
    family(
        "GPT-2",
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_layer": 3, "n_embd": 16, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY, **ENDS},
    ),
    family("Llama", "LlamaForCausalLM", "LlamaConfig", {**GROUPED, **TOKENS}),
    family("Qwen2", "Qwen2ForCausalLM", "Qwen2Config", {**GROUPED, **TOKENS}),
    family("Qwen3", "Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, **TOKENS, "head_dim": 8}, note="q and k are taken before their norms."),
    family("Mistral", "MistralForCausalLM", "MistralConfig", {**GROUPED, **TOKENS, "sliding_window": 4}),
    family(
        "Gemma-2",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**GROUPED, **TOKENS, "head_dim": 8, "sliding_window": 4},
        note="attn_out and mlp_out are what is added: after the second norm of a branch.",
    ),
    family("Gemma-3", "Gemma3ForCausalLM", "Gemma3TextConfig", {**GROUPED, **TOKENS, "head_dim": 8, "sliding_window": 4}),
    family("OLMo-2", "Olmo2ForCausalLM", "Olmo2Config", {**GROUPED, **TOKENS}),
    family("GPT-NeoX (parallel)", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**SIZES, **TOKENS}, sites=PARALLEL, lacks=NO_MID),
    family("GPT-NeoX (sequential)", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**SIZES, **TOKENS, "use_parallel_residual": False}),
    family(
        "GPT-J",
        "GPTJForCausalLM",
        "GPTJConfig",
        {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64, "rotary_dim": 2, "vocab_size": VOCABULARY, **ENDS},
        sites=PARALLEL,
        lacks=NO_MID,
    ),
    family(
        "OPT",
        "OPTForCausalLM",
        "OPTConfig",
        {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 32, "word_embed_proj_dim": 16, **TOKENS},
    ),
    family(
        "OPT (post-norm)",
        "OPTForCausalLM",
        "OPTConfig",
        {
            **{"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 32, "word_embed_proj_dim": 8, **TOKENS},
            "do_layer_norm_before": False,
        },
        lacks=NO_NORM,
    ),
    family("Phi", "PhiForCausalLM", "PhiConfig", {**SIZES, **TOKENS}, sites=PARALLEL, lacks=NO_MID),
    family("Phi-3", "Phi3ForCausalLM", "Phi3Config", {**GROUPED, **TOKENS}),
    family("BLOOM", "BloomForCausalLM", "BloomConfig", {"hidden_size": 16, "n_layer": 3, "n_head": 4, "vocab_size": VOCABULARY, **ENDS}),
    family(
        "Falcon (one key head)",
        "FalconForCausalLM",
        "FalconConfig",
        {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, **TOKENS},
        sites=PARALLEL,
        lacks=NO_MID,
    ),
    family(
        "Falcon (grouped)",
        "FalconForCausalLM",
        "FalconConfig",
        {
            **{"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, **TOKENS},
            **{"num_kv_heads": 2, "new_decoder_architecture": True},
        },
        sites=PARALLEL,
        lacks=NO_MID,
    ),
]

ENCODERS = [
    family("BERT", "BertModel", "BertConfig", {**SIZES, **TOKENS}, lacks={**NO_NORM, **NO_HEAD}, special=True),
    family("BERT (masked words)", "BertForMaskedLM", "BertConfig", {**SIZES, **TOKENS}, lacks=NO_NORM, special=True),
    family(
        "RoBERTa", "RobertaForMaskedLM", "RobertaConfig", {**SIZES, **TOKENS, "max_position_embeddings": 66}, lacks=NO_NORM, special=True
    ),
    family("ELECTRA", "ElectraForMaskedLM", "ElectraConfig", {**SIZES, **TOKENS, "embedding_size": 8}, lacks=NO_NORM, special=True),
    family(
        "ALBERT",
        "AlbertForMaskedLM",
        "AlbertConfig",
        {**SIZES, **TOKENS, "embedding_size": 8},
        lacks=NO_NORM,
        special=True,
        note="One layer runs for every block: block i is its run number i.",
    ),
    family(
        "DistilBERT",
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"dim": 16, "n_layers": 3, "n_heads": 4, "hidden_dim": 32, **TOKENS},
        lacks=NO_NORM,
        special=True,
    ),
    family(
        "DeBERTa",
        "DebertaForMaskedLM",
        "DebertaConfig",
        {**SIZES, **TOKENS, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
        sites=tuple(name for name in TRANSFORMER if name[-2:] not in (".q", ".v")),
        lacks={**NO_NORM, **{f"blocks.1.{name}": "puts them together from several tensors" for name in "qv"}},
        special=True,
        note="Queries and values have biases that are added outside of their projection.",
    ),
    family(
        "DeBERTa-v2",
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        {
            **{**SIZES, **TOKENS, "relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False},
            **{"type_vocab_size": 0, "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 8},
        },
        lacks=NO_NORM,
        special=True,
        note="Projections also read relative positions: the run over tokens is meant.",
    ),
    family(
        "XLNet",
        "XLNetLMHeadModel",
        "XLNetConfig",
        {"d_model": 16, "n_layer": 3, "n_head": 4, "d_inner": 32, "vocab_size": VOCABULARY, **ENDS},
        sites=tuple(name for name in TRANSFORMER if name[-2:] not in (".q", ".k", ".v", ".z")),
        lacks={**NO_NORM, **{f"blocks.1.{name}": "attention runs fused" for name in "qkvz"}},
        special=True,
        note="Time stands before the stimuli inside; its projections are plain matrices without modules.",
    ),
    family(
        "ModernBERT",
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        {**SIZES, **TOKENS, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8},
        special=True,
    ),
]

EXPERT_MODELS = [
    family(
        "Mixtral",
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, **TOKENS, "num_local_experts": 4, "num_experts_per_tok": 2},
        sites=EXPERTS,
        lacks=NO_ACT,
    ),
    family(
        "Qwen2-MoE",
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {
            **{**GROUPED, **TOKENS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
            **{"shared_expert_intermediate_size": 12, "mlp_only_layers": [0]},
        },
        sites=(*EXPERTS, "blocks.1.experts_out", "blocks.0.mlp_act"),
        lacks=NO_ACT,
        note="Block 0 is plain here; the others have a shared expert beside the routed ones.",
    ),
    family(
        "OLMoE",
        "OlmoeForCausalLM",
        "OlmoeConfig",
        {**SIZES, **TOKENS, "num_experts": 4, "num_experts_per_tok": 2},
        sites=EXPERTS,
        lacks=NO_ACT,
    ),
    family(
        "DeepSeek-V3",
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        {
            **{**SIZES, **TOKENS, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
            **{"moe_intermediate_size": 8, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4},
            **{"v_head_dim": 4, "first_k_dense_replace": 1},
        },
        sites=(*(name for name in EXPERTS if name[-2:] not in (".q", ".k")), "blocks.1.experts_out"),
        lacks={**NO_ACT, **{f"blocks.1.{name}": "puts them together from several tensors" for name in "qk"}},
    ),
]

STATE_SPACES = [
    family(
        "Mamba",
        "MambaForCausalLM",
        "MambaConfig",
        {"hidden_size": 16, "num_hidden_layers": 3, "state_size": 4, "vocab_size": VOCABULARY, **ENDS},
        sites=MIXER,
        lacks=without_attention("MambaMixer"),
        cached=False,
    ),
    family(
        "Mamba-2",
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {
            **{"hidden_size": 16, "num_hidden_layers": 3, "state_size": 4, "vocab_size": VOCABULARY, **ENDS},
            **{"num_heads": 4, "head_dim": 8, "n_groups": 1},
        },
        sites=MIXER,
        lacks=without_attention("Mamba2Mixer"),
        cached=False,
    ),
    family(
        "Falcon-Mamba",
        "FalconMambaForCausalLM",
        "FalconMambaConfig",
        {"hidden_size": 16, "num_hidden_layers": 3, "state_size": 4, "vocab_size": VOCABULARY, **ENDS},
        sites=MIXER,
        lacks=without_attention("FalconMambaMixer"),
        cached=False,
    ),
    family(
        "Jamba",
        "JambaForCausalLM",
        "JambaConfig",
        {
            **{**GROUPED, **TOKENS, "num_hidden_layers": 4, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
            **{"expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False, "mamba_dt_rank": 4},
        },
        sites=(*EXPERTS, "blocks.2.mixer_out", "blocks.2.resid_mid", "blocks.2.mlp_act"),
        lacks={**NO_ACT, "blocks.2.attn_out": "no attention: JambaMambaMixer mixes the positions"},
        note="Blocks with attention and blocks with a state space, in turn.",
        cached=False,
    ),
]

FAMILIES = [*DECODERS, *ENCODERS, *EXPERT_MODELS, *STATE_SPACES]
