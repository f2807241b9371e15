"""Dictionaries of other libraries: read as their own library reads them, and written so that it does.

`tests/fixtures/dictionaries/README.md` says which library wrote each file and which made codes and output of it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import inscape as ix
from inscape.dictionaries import Dictionary, registered_formats
from inscape.dictionaries.files import Files
from inscape.errors import DictionaryError, StoreCorruptError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "dictionaries"
# What the files do not say, by case.
SCALES = {"sae_lens/topk_scaled": 0.37, "gemma_scope/embedding": 16**-0.5}
CASES = sorted(
    f"{folder.parent.name}/{folder.name}" for name in registered_formats() for folder in (FIXTURES / name).iterdir() if folder.is_dir()
)
KINDS = {
    "sae_lens/standard": "ReLU",
    "sae_lens/old_topk": "TopK(width=32, k=4)",
    "sae_lens/gated": "Gated",
    "sae_lens/matching_pursuit": "MatchingPursuit(width=32, k=4)",
    "sae_lens/skip_transcoder": "JumpReLUTranscoder(width=32, skip=True)",
    "sparsify/skip_transcoder": "Transcoder(width=32, k=4, skip=True)",
    "dictionary_learning/batch_top_k": "BatchTopK(width=32, k=4)",
    "dictionary_learning/matryoshka": "Matryoshka(width=32, k=4, prefixes=(8, 16, 32))",
    "dictionary_learning/jump_relu": "JumpReLU(width=32, l0=5)",
    "llama_scope/transcoder": "JumpReLUTranscoder(width=32, l0=8)",
    "openai/top_k": "TopK(width=32, k=4)",
}


def written() -> Any:
    """The script that writes for `read_back.py`, as a module."""
    folder = str(FIXTURES)
    spec = importlib.util.spec_from_file_location("inscape_fixture_written", FIXTURES / "written.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        sys.modules.pop("scene", None)
    return module


@pytest.mark.parametrize("case", CASES)
def test_codes_and_output_are_those_of_the_library_itself(case: str) -> None:
    told = load_file(FIXTURES / f"{case}.safetensors")
    one = Dictionary.load(FIXTURES / case, scale=SCALES.get(case))
    assert (one.d, one.m) == (16, 32)
    z = one.encode(told["x"]).torch()
    torch.testing.assert_close(z, told["z"], atol=2e-5, rtol=2e-5)
    y = told["y"]
    if case == "gemma_scope/embedding":
        # SAELens scales W_enc and W_dec of these, and leaves b_dec as it is; where rows are scaled, b_dec is, too.
        y = y + one.b_dec * (1 - SCALES[case])
    torch.testing.assert_close(one.reconstruct(told["x"]), y, atol=5e-5, rtol=2e-5)
    assert bool((told["z"] != 0).any(1).all()) and not bool((told["z"] != 0).all(1).any())
    assert repr(one.recipe).startswith(KINDS.get(case, ""))
    assert one.info["format"]["name"] == case.split("/")[0]


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_by_what_the_files_hold(case: str, tmp_path: Path) -> None:
    """In a folder of any name, and by one format alone."""
    folder = tmp_path / "a folder (1)"
    shutil.copytree(FIXTURES / case, folder)
    assert [name for name, one in registered_formats().items() if one.fits(Files.at(folder))] == [case.split("/")[0]]
    again = Dictionary.load(folder, scale=SCALES.get(case))
    assert torch.equal(again.W_dec, Dictionary.load(FIXTURES / case, scale=SCALES.get(case)).W_dec)


def test_provenance_is_kept() -> None:
    one = Dictionary.load(FIXTURES / "sae_lens" / "standard")
    assert (one.site, one.info["system"]) == ("blocks.3.resid_post", "gpt2-small")
    assert one.info["format"]["config"]["metadata"]["sae_lens_version"] == "6.54.12"
    old = Dictionary.load(FIXTURES / "sae_lens" / "older_standard")
    assert (old.site, old.info["system"]) == ("blocks.3.resid_post", "gpt2-small")
    pair = Dictionary.load(FIXTURES / "llama_scope" / "transcoder")
    assert pair.site is None and pair.info["sites"] == ["blocks.8.ln2.hook_normalized", "blocks.8.mlp_out"]
    assert Dictionary.load(FIXTURES / "sparsify" / "layers.3.mlp").site == "layers.3.mlp"


def test_scores_of_a_dictionary_that_normalizes_each_row() -> None:
    """Against the reconstruction of the library."""
    told = load_file(FIXTURES / "sae_lens" / "topk_layer_norm.safetensors")
    x, y = told["x"].double(), told["y"].double()
    one = Dictionary.load(FIXTURES / "sae_lens" / "topk_layer_norm")
    fvu = float((x - y).square().sum() / (x - x.mean(0)).square().sum())
    assert one.score(told["x"], interval=None).value(measure="fvu") == pytest.approx(fvu, rel=1e-4)
    with pytest.raises(DictionaryError, match="layer_norm.*reconstruct"):
        one.decode(one.encode(told["x"]))


def test_a_dictionary_that_normalizes_each_row_is_kept(tmp_path: Path) -> None:
    one = Dictionary.load(FIXTURES / "openai" / "top_k")
    x = load_file(FIXTURES / "openai" / "top_k.safetensors")["x"]
    one.save(tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "dictionary.json").read_text())["format_version"] == 2
    for back in (Dictionary.load(tmp_path / "kept"), one.to(dtype=torch.float32), one.using(k=4)):
        assert torch.equal(back.reconstruct(x), one.reconstruct(x))


def test_a_dictionary_of_format_version_1_is_read() -> None:
    """As written before `per_row` was there."""
    one = Dictionary.load(FIXTURES / "inscape" / "version_1")
    told = load_file(FIXTURES / "inscape" / "version_1.safetensors")
    assert one.per_row is None
    torch.testing.assert_close(one.encode(told["x"]).torch(), told["z"])


def test_factors_of_old_sae_lens_files_multiply_codes_before_they_are_decoded(tmp_path: Path) -> None:
    """`scaling_factor`, as versions before 6 decode: x̂ = (z ⊙ s) W_dec + b_dec, written out in NumPy."""
    shutil.copytree(FIXTURES / "sae_lens" / "older_standard", tmp_path / "old")
    tensors = load_file(tmp_path / "old" / "sae_weights.safetensors")
    factors = torch.linspace(0.5, 2.0, 32)
    save_file({**tensors, "scaling_factor": factors}, tmp_path / "old" / "sae_weights.safetensors")
    told = load_file(FIXTURES / "sae_lens" / "older_standard.safetensors")
    one = Dictionary.load(tmp_path / "old")
    expected = (told["z"] * factors).numpy() @ tensors["W_dec"].numpy() + tensors["b_dec"].numpy()
    np.testing.assert_allclose(one.encode(told["x"]).numpy(), told["z"].numpy(), atol=1e-5)
    np.testing.assert_allclose(one.reconstruct(told["x"]).numpy(), expected, atol=2e-5)


def test_a_circuit_tracer_file_with_k_is_top_k(tmp_path: Path) -> None:
    """The largest four of what ReLU gives."""
    tensors = load_file(FIXTURES / "circuit_tracer" / "relu" / "layer_2.safetensors")
    told = load_file(FIXTURES / "circuit_tracer" / "relu.safetensors")
    save_file({**tensors, "k": torch.tensor(4)}, tmp_path / "layer_2.safetensors")
    one = Dictionary.load(tmp_path / "layer_2.safetensors")
    least = told["z"].sort(1).values[:, -4, None]
    torch.testing.assert_close(one.encode(told["x"]).torch(), told["z"] * (told["z"] >= least))
    assert repr(one.recipe) == "Transcoder(width=32, k=4)"


def test_what_is_written_is_what_the_libraries_read(tmp_path: Path) -> None:
    """The committed files were read by their libraries (`read_back.json`); what is written today is the same."""
    script = written()
    record = json.loads((FIXTURES / "written" / "read_back.json").read_text())
    assert sorted(record) == sorted("/".join(case) for case in script.cases())
    for name, case in script.cases():
        assert max(record[f"{name}/{case}"]["largest difference"].values()) < 1e-5
        folder, kept = tmp_path / name / case, FIXTURES / "written" / name / case
        one = script.made(case)
        one.save(folder, format=name)
        assert {path.name for path in folder.iterdir()} == {path.name for path in kept.iterdir()}
        for file in kept.iterdir():
            if file.suffix == ".json":
                assert json.loads((folder / file.name).read_text()) == json.loads(file.read_text())
            elif file.suffix in (".safetensors", ".pt"):
                new, old = Files.at(folder / file.name).tensors, Files.at(file).tensors
                assert new.keys() == old.keys()
                assert all(torch.equal(new[part], old[part]) for part in old)
            else:
                with np.load(folder / file.name) as new_file, np.load(file) as old_file:
                    assert all(np.array_equal(new_file[part], old_file[part]) for part in old_file.files)
        x = script.rows()
        back = Dictionary.load(folder)
        torch.testing.assert_close(back.encode(x).torch(), one.encode(x).torch(), atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(back.reconstruct(x), one.reconstruct(x), atol=5e-5, rtol=2e-5)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="no file or folder"):
        Dictionary.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DictionaryError, match=r"neither dictionary\.json nor a file"):
        Dictionary.load(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(DictionaryError, match="no file with weights"):
        Dictionary.load(tmp_path / "notes.txt")
    (tmp_path / "other").mkdir()
    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(DictionaryError, match=r"no known format.*weight \[2, 3\].*sae_lens.*W_enc"):
        Dictionary.load(tmp_path / "other")
    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "other" / "more.safetensors")
    with pytest.raises(DictionaryError, match="2 files with weights; give one of them: model.safetensors, more.safetensors"):
        Dictionary.load(tmp_path / "other")
    for name in ("layers.0", "layers.1"):
        shutil.copytree(FIXTURES / "sparsify" / "sae", tmp_path / "many" / name)
    with pytest.raises(DictionaryError, match=r"folders of dictionaries; give one of them: layers\.0, layers\.1"):
        Dictionary.load(tmp_path / "many")
    (tmp_path / "damaged.safetensors").write_bytes(b"not at all")
    with pytest.raises(StoreCorruptError, match="damaged"):
        Dictionary.load(tmp_path / "damaged.safetensors")


def test_pickles_that_hold_more_than_tensors_are_not_run(tmp_path: Path) -> None:
    class Spy:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "it ran",))

    torch.save({"encoder.weight": torch.zeros(2, 2), "x": Spy()}, tmp_path / "ae.pt")  # noqa: TID251
    with pytest.raises(StoreCorruptError, match="more than tensors"):
        Dictionary.load(tmp_path / "ae.pt")
    assert not (tmp_path / "it ran").exists()


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="expected_average_only_in.*scale="):
        Dictionary.load(FIXTURES / "sae_lens" / "topk_scaled")
    with pytest.raises(DictionaryError, match="rows as they are"):
        Dictionary.load(FIXTURES / "sae_lens" / "topk", scale=2.0)
    with pytest.raises(DictionaryError, match="sparsify says in its files"):
        Dictionary.load(FIXTURES / "sparsify" / "sae", scale=2.0)
    shutil.copytree(FIXTURES / "dictionary_learning" / "top_k", tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    with pytest.raises(DictionaryError, match=r"AutoEncoderTopK or BatchTopKSAE have the same tensors"):
        Dictionary.load(tmp_path / "bare")


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("sae_lens/standard", {"architecture": "temporal"}, "'temporal' has no kind"),
        ("sae_lens/standard", {"normalize_activations": "covariance_whitening"}, "covariance_whitening.*not known"),
        ("sae_lens/matching_pursuit", {"residual_threshold": 0.01}, "residual_threshold"),
        ("sae_lens/topk", {"k": None}, "k=None"),
        ("sparsify/sae", {"activation": "groupmax"}, "groupmax"),
        ("dictionary_learning/standard", {"trainer": {"dict_class": "IdentityDict"}}, "IdentityDict has no kind"),
        ("llama_scope/sae", {"norm_activation": "token-wise"}, "token-wise"),
        ("llama_scope/sae", {"act_fn": "sigmoid"}, "sigmoid"),
    ],
)
def test_what_has_no_kind_is_refused(case: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(FIXTURES / case, folder)
    file = next(path for path in folder.iterdir() if path.suffix == ".json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(DictionaryError, match=message):
        Dictionary.load(folder)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    pca = ix.decompose(np.random.default_rng(0).standard_normal((64, 8)), ix.dictionaries.PCA(width=4))
    with pytest.raises(DictionaryError, match=r"sae_lens cannot hold a PCA.*Leave format= out"):
        pca.save(tmp_path, format="sae_lens")
    relu = written().made("relu")
    with pytest.raises(DictionaryError, match=r"sparsify cannot hold a ReLU.*written as dictionary_learning, sae_lens"):
        relu.save(tmp_path, format="sparsify")
    with pytest.raises(DictionaryError, match="inscape reads it only"):
        relu.save(tmp_path, format="openai")
    with pytest.raises(DictionaryError, match="unknown format 'saelens'.*sae_lens"):
        relu.save(tmp_path, format="saelens")
    with pytest.raises(DictionaryError, match="normalizes each row"):
        Dictionary.load(FIXTURES / "openai" / "top_k").save(tmp_path, format="sae_lens")
