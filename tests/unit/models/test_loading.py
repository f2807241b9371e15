"""`load`: folders, ready modules, errors, and what identifies a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import inscape as ix
from inscape.errors import MissingExtraError, ModelNotFoundError
from inscape.models import Model, Site
from inscape.models.identity import known_file_hashes
from inscape.models.loading import no_model


def test_a_folder_with_a_head_where_the_architecture_has_one(gpt2: Any, bert: Any, tmp_path: Path) -> None:
    gpt2.save_pretrained(tmp_path / "gpt")
    bert.save_pretrained(tmp_path / "bert")
    model = ix.load(tmp_path / "gpt", dtype="float64")
    assert type(model.module).__name__ == "GPT2LMHeadModel"
    assert (model.name, model.modality, model.family, model.dtype) == ("gpt", "text", "gpt2", torch.float64)
    assert torch.equal(model.module.lm_head.weight.float(), gpt2.lm_head.weight)
    assert model.tokenizer is None
    assert type(ix.load(str(tmp_path / "bert")).module).__name__ == "BertModel"
    assert "Model('gpt', text, gpt2" in repr(model)


def test_ready_modules_are_recognized(vit: Any, wav2vec2_group: Any, gpt2: Any, plain_gpt: Any) -> None:
    assert [ix.load(module).modality for module in (vit, wav2vec2_group, gpt2)] == ["image", "audio", "text"]
    assert ix.load(nn.Linear(2, 2)).modality == "tensor"
    assert ix.load(plain_gpt, tokenizer=object()).modality == "text"
    model = ix.load(nn.Linear(2, 2), name="probe", device="cpu", dtype=torch.float64)
    assert (model.name, model.dtype, model.device) == ("probe", torch.float64, torch.device("cpu"))
    assert ix.load(model) is model
    assert isinstance(model, Model)


def test_a_compiled_module_is_read_through_its_parts(gpt2: Any) -> None:
    model = ix.load(torch.compile(gpt2))
    assert model.module is gpt2
    assert model.resolve("blocks.0.resid_post")[0].path == "transformer.h.0"


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"cannot load a model from .*nowhere': there is no such folder here; transformers says: .*Give a folder"
    ):
        ix.load(str(tmp_path / "nowhere"), local_files_only=True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="the folder exists, but no model could be read from it"):
        ix.load(tmp_path)


def test_what_is_neither_a_module_nor_a_name(gpt2: Any) -> None:
    pipeline = SimpleNamespace(model=gpt2, tokenizer=object())
    assert "holds one; give that: ix.load(it.model, tokenizer=it.tokenizer)" in no_model(pipeline)
    assert "GPT2LMHeadModel is a class, which has no weights; give a model made of it" in no_model(type(gpt2))
    assert no_model({}) == "a dict is no model; give a Hugging Face id, a folder, or the nn.Module itself"


def test_a_tokenizer_that_was_asked_for(gpt2: Any, tmp_path: Path) -> None:
    gpt2.save_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError, match="cannot load a tokenizer from .*: the folder holds no tokenizer.json, vocabulary"):
        ix.load(tmp_path, tokenizer=str(tmp_path))
    ready = object()
    assert ix.load(tmp_path, tokenizer=ready).tokenizer is ready


def test_missing_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "transformers" else real(name, *a))
    with pytest.raises(MissingExtraError, match=r"loading 'gpt2' needs the package 'transformers'.*pip install 'inscape\[hf\]'"):
        ix.load("gpt2")


def test_identity_tells_models_apart() -> None:
    torch.manual_seed(0)
    a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    one, two = ix.load(a).identity(weights=True), ix.load(b).identity(weights=True)
    assert one["class"] == "torch.nn.modules.linear.Linear"
    assert (one["parameters"], one["dtype"]) == (9, "float32")
    assert one["weights_sha256"] != two["weights_sha256"]
    assert "weights_sha256" not in ix.load(a).identity()
    b.load_state_dict(a.state_dict())
    assert ix.load(b).identity(weights=True) == one
    digest = hashlib.sha256()
    for name, tensor in (("bias", a.bias), ("weight", a.weight)):
        digest.update(f"{name}:torch.float32:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().numpy().tobytes())
    assert one["weights_sha256"] == digest.hexdigest()


def test_identity_of_a_configuration(gpt2: Any, bert: Any) -> None:
    one, two = ix.load(gpt2).identity(), ix.load(bert).identity()
    assert len(one["config_sha256"]) == 64
    assert one["config_sha256"] != two["config_sha256"]


def test_file_hashes_of_a_download_cache(tmp_path: Path) -> None:
    digest = "ab" * 32
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / digest).write_text("weights")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(tmp_path / "blobs" / digest)
    (tmp_path / "snapshot" / "config.json").write_text("{}")
    assert known_file_hashes(str(tmp_path / "snapshot")) == {"model.safetensors": digest}


def test_a_site_is_data() -> None:
    site = Site("a", "layer", "in", note="x")
    assert site == Site("a", "layer", "in", note="x")
    with pytest.raises(AttributeError):
        site.name = "b"  # type: ignore[misc]
