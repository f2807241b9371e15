"""A tokenizer whose ids can be counted by hand, and texts of a wanted length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WORDS = [f"w{i}" for i in range(40)]
VOCABULARY = 44  # the words, and four special tokens before them

# Twenty texts of 1 to 20 words, not in order of length, so that batches mix lengths.
LENGTHS = tuple((7 * i) % 20 + 1 for i in range(20))


def make_tokenizer(special: bool, maximum: int = 64) -> Any:
    """Words w0…w39 are ids 4…43; with `special`, [CLS] … [SEP] stand around them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, **{word: i + 4 for i, word in enumerate(WORDS)}}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", **({"cls_token": "[CLS]", "sep_token": "[SEP]"} if special else {})}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=maximum, **names)


def words(count: int, start: int = 0) -> str:
    """A text of `count` words."""
    return " ".join(WORDS[(start + i) % len(WORDS)] for i in range(count))


def texts(lengths: Sequence[int] = LENGTHS) -> list[str]:
    """One text for each length, each beginning with another word."""
    return [words(length, start=3 * i) for i, length in enumerate(lengths)]
