"""A folder in which the pages' code can run: `gpt2` and `pythia` are small local models there, so no network is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.scene_models import save_models

LAYERS, WIDTH = 7, 36


def _sentences(count: int) -> list[str]:
    people = ["The teacher", "A sailor", "My neighbor", "Nobody", "The old judge", "Every child", "Her brother", "The cat"]
    deeds = ["opened", "forgot", "painted", "sold", "found", "broke", "praised", "hid"]
    things = ["the door.", "a long letter.", "two red boats.", "the answer.", "his violin.", "an empty box.", "the map.", "a film."]
    found = [f"{a} {b} {c}" for a in people for b in deeds for c in things]
    return found[:: len(found) // count][:count]


def _save(folder: Path, seed: int, texts: list[str]) -> None:
    """A GPT-2 with random weights and a byte-level tokenizer, saved as Hugging Face saves them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet))
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", bos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=4, n_positions=128, vocab_size=len(raw.get_vocab()), bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, made once; each page works on a copy."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("scene")
    texts = _sentences(64)
    _save(folder / "gpt2", 0, texts)
    _save(folder / "pythia", 1, texts)
    save_models(folder, AutoTokenizer.from_pretrained(folder / "gpt2"))
    (folder / "sentences.txt").write_text("\n".join(texts) + "\n")
    return folder


@pytest.fixture
def page_folder(scene: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the scene as the working directory."""
    shutil.copytree(scene, tmp_path, dirs_exist_ok=True)
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)
