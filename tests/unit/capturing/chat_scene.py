"""A byte-level tokenizer that reads any text, chat templates of several habits, and a small model for them."""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 300

# One header a message, an end mark, a prompt for the answer: the habit of most models.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The same with marks around what the assistant writes, its end mark included.
MARKED = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ message['content'] }}"
    "<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}"
)
# Opens with BOS, puts the system prompt into the first turn, trims, knows two roles only.
FOLDED = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}[INST] {% if loop.first and system %}<<{{ system | trim }}>> {% endif %}"
    "{{ message['content'] | trim }} [/INST]{% else %} {{ message['content'] | trim }}</s>{% endif %}{% endfor %}"
)
# Drops what an earlier answer thought, so that a message looks different once others follow.
FORGETFUL = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['role'] == 'assistant' and not loop.last %}"
    "{{ message['content'].split('</think>')[-1] }}{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
)
# Thinks first, and takes newlines off what the assistant says, but no other white space.
STRIPPING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n"
    "{{ message['content'].lstrip('\n') }}{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
)
TOOLS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message.content %}{{ message['content'] }}{% endif %}"
    "{% for call in message.tool_calls or [] %}<tool>{{ call['function'] | tojson }}</tool>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(template: str | None = CHATML, *, add_bos: bool = True, merges: bool = False) -> Any:
    """One token a byte (or a few pairs merged), with marks for turns; as many tokenizers do, it opens every text with BOS by itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("Ġ", "c"), ("a", "t"), ("Ġ", "t"), ("Ġc", "at")] if merges else []
    words = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", *alphabet, *(a + b for a, b in pairs)]
    inner = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if add_bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", model_max_length=512)
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<|im_start|>", "<|im_end|>")], special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def chat_model() -> Any:
    """A Llama of two layers that reads the tokenizer's ids."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=512, **sizes, **ends)).eval()
