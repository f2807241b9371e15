"""Models that read one text and write another."""

from __future__ import annotations

import torch

from tests.families.catalog import TRANSFORMER, Family
from tests.families.tokenizer import LENGTHS, VOCABULARY, make_tokenizer, texts

DECODER = tuple(f"decoder.{name}" for name in (*TRANSFORMER, "blocks.1.cross_attn_out", "blocks.1.resid_mid_cross"))
SMALL = {"d_model": 16, "vocab_size": VOCABULARY, "pad_token_id": 0, "decoder_start_token_id": 0}


def texts_with_targets() -> dict[str, list[str]]:
    """Texts, and what is to be written of each: shorter than most, not in order of length."""
    return {"text": texts(), "target": texts([length % 7 + 1 for length in LENGTHS])}


def _t5():
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(**SMALL, d_kv=4, d_ff=32, num_layers=3, num_heads=4, eos_token_id=2))


def _mt5():
    from transformers import MT5Config, MT5Model

    return MT5Model(MT5Config(**SMALL, d_kv=4, d_ff=32, num_layers=3, num_heads=4, eos_token_id=2))


def _bart():
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {"layers": 3, "attention_heads": 4, "ffn_dim": 32}
    layers = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}
    return BartForConditionalGeneration(BartConfig(**SMALL, **layers, max_position_embeddings=64, bos_token_id=1, eos_token_id=2))


def _first(module: torch.nn.Module) -> object:
    """The first text, with nothing but the start token for the decoder."""
    ids = make_tokenizer(special=False)(texts()[0], return_tensors="pt")["input_ids"]
    return module(input_ids=ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long))


def _first_pair(module: torch.nn.Module) -> object:
    """The first text, and its target behind the start token."""
    tokenizer, table = make_tokenizer(special=False), texts_with_targets()
    ids, target = (tokenizer(table[column][0], return_tensors="pt")["input_ids"] for column in ("text", "target"))
    return module(input_ids=ids, decoder_input_ids=torch.cat([torch.zeros(1, 1, dtype=torch.long), target], 1))


FAMILIES = [
    Family(
        "T5",
        _t5,
        texts_with_targets,
        load={"tokenizer": make_tokenizer(special=False)},
        sites=("embed", *TRANSFORMER, "final_norm", "decoder.embed", *DECODER, "decoder.final_norm", "logits"),
        sides=("right",),
        by_hand=_first_pair,
        note="`blocks.*` is the encoder (also `encoder.blocks.*`); the decoder reads the column `target`.",
    ),
    Family(
        "mT5",
        _mt5,
        texts,
        load={"tokenizer": make_tokenizer(special=False)},
        sites=("embed", *TRANSFORMER, "final_norm", "decoder.embed", *DECODER, "decoder.final_norm"),
        lacks={"logits": "loaded without a head"},
        sides=("right",),
        by_hand=_first,
        note="Without a target the decoder reads its start token alone.",
    ),
    Family(
        "BART",
        _bart,
        texts_with_targets,
        load={"tokenizer": make_tokenizer(special=False)},
        sites=("embed", *TRANSFORMER, "decoder.embed", *DECODER, "logits"),
        lacks={"final_norm": "no norm follows the last block", "decoder.final_norm": "no norm follows the last block"},
        sides=("right",),
        by_hand=_first_pair,
        note="Post-norm blocks: `resid_mid` and `resid_mid_cross` are behind the norms that follow.",
    ),
]
