"""Language models."""

from __future__ import annotations

from tests.families.catalog import SIZES, TRANSFORMER, Family
from tests.families.tokenizer import VOCABULARY, make_tokenizer, texts

ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TOKENS = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, **ENDS}


def _gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=4, n_positions=64, vocab_size=VOCABULARY, **ENDS))


def _bert():
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SIZES, vocab_size=VOCABULARY, max_position_embeddings=64))


FAMILIES = [
    Family(
        "GPT-2",
        _gpt2,
        texts,
        load={"tokenizer": make_tokenizer(special=False)},
        sites=("embed", *TRANSFORMER, "final_norm", "logits"),
    ),
    Family(
        "BERT",
        _bert,
        texts,
        load={"tokenizer": make_tokenizer(special=True)},
        sites=("embed", *TRANSFORMER),
        lacks={"final_norm": "no norm follows the last block", "logits": "loaded without a head"},
    ),
]
