"""`load`: a Hugging Face id, a local folder or a ready module becomes a `Model`."""

from __future__ import annotations

import json
import os
import re
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from inscape.errors import MissingExtraError, ModelError, ModelNotFoundError, nearest, require
from inscape.models.embedders import OPTIONS, Embedder, embedder_of, is_embedder, is_embedder_folder, load_embedder
from inscape.models.examples import parameters_of
from inscape.models.model import Forward, Model
from inscape.models.placement import check_weights, is_dispatched
from inscape.models.wrappers import core, unwrapped

_VOCABULARY = re.compile(r"^tokenizer\.json$|^vocab|^merges|\.model$|\.tiktoken$|^tokenization.*\.py$|^tekken")
_SHARED = ("revision", "local_files_only", "token", "cache_dir", "trust_remote_code", "subfolder")
_DTYPES = ("float32", "float16", "bfloat16", "float64", "auto")
_INPUTS = {"input_ids": "text", "pixel_values": "image", "input_values": "audio", "input_features": "audio"}


def load(
    source: str | os.PathLike[str] | nn.Module | Model,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    forward: Forward | None = None,
    name: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    **from_pretrained: Any,
) -> Model:
    """Loads a model, or wraps one that is ready.

    Args:
        source: a Hugging Face id, a folder made by `save_pretrained` (a model's, an adapter's, or a sentence encoder's), or any
            `torch.nn.Module`, a `SentenceTransformer` among them, whose site `embedding` is what its `encode` gives.
        tokenizer: for text; loaded from the same place when left out (or a source to load it from).
        processor: for images or sound; loaded likewise.
        forward: `forward(module, batch)` runs the module where calling it with the batch's entries is not right.
        name: label in tables; by default the last part of the source.
        device: where to put it.
        dtype: such as `torch.bfloat16` or "bfloat16".
        device_map: where each part goes while it is loaded: "auto", or a mapping such as `{"": "disk"}` (with `offload_folder=`).
        revision: branch, tag or commit.
        attn_implementation: "sdpa", "eager", ….
        **from_pretrained: passed on, such as `offload_folder`, `quantization_config` or `local_files_only`. For a `SentenceTransformer`
            (or the folder of one) `prompt`, `prompt_name`, `truncate_dim` and `normalize_embeddings`, as its `encode` takes them.

    Raises:
        ModelNotFoundError: nothing could be loaded from `source`.
        ModelError: the module cannot be read as it is, or an option does not suit it.
        MissingExtraError: transformers is needed and not installed.

    Example:
        >>> model = ix.load("gpt2")
        >>> model.sites()
    """
    given = {"device_map": device_map, "revision": revision, "attn_implementation": attn_implementation, **from_pretrained}
    given = {key: value for key, value in given.items() if value is not None}
    kind = _dtype(dtype)
    if isinstance(source, Model):
        given |= {"device": device, "dtype": dtype, "tokenizer": tokenizer, "processor": processor, "forward": forward, "name": name}
        _nothing_left({key: value for key, value in given.items() if value is not None}, "a loaded Model")
        return source
    how = {key: given.pop(key) for key in OPTIONS if key in given}
    if is_embedder(source):
        source = embedder_of(source, how)
    elif isinstance(source, (str, os.PathLike)) and is_embedder_folder(os.fspath(source)) and device_map is None:
        options = {**given, **({} if dtype is None else {"dtype": dtype if kind is None else kind})}
        name = name or os.path.basename(os.path.normpath(os.fspath(source)))
        source, given, kind = embedder_of(load_embedder(os.fspath(source), options), how), {}, None
    elif how:
        _nothing_left(how, "this model: it is no sentence encoder", "they say how a SentenceTransformer embeds")
    if isinstance(source, nn.Module):
        _nothing_left(given, "a module that is ready")
        module = unwrapped(source)
        if device is not None or kind is not None:
            module = _moved(module, device, kind)
        check_weights(module)
        if isinstance(module, Embedder) and tokenizer is None:
            tokenizer = module.tokenizer
        return _wrap(module, tokenizer, processor, forward, name, None)
    given_as: Any = source  # callers that check no types may give anything
    if not isinstance(given_as, (str, os.PathLike)):
        raise ModelError(no_model(given_as))
    where = os.fspath(source)
    require("transformers", "hf", f"loading {where!r}")
    if device_map is not None:
        _needs("accelerate", f"device_map={device_map!r}")
        if device is not None:
            raise ModelError(f"device={str(device)!r} and device_map={device_map!r} both say where the weights go; give one of them")
    options = {**given, **({} if dtype is None else {"dtype": dtype if kind is None else kind})}
    module = unwrapped(_from_pretrained(where, options))
    if device is not None:
        module = _moved(module, device, None)
    shared = {key: value for key, value in options.items() if key in _SHARED}
    modality = _modality(module, None, None)
    if modality == "multimodal":
        processor = _companion("AutoProcessor", processor, where, shared)
        if tokenizer is not None or not hasattr(processor, "tokenizer"):
            tokenizer = _companion("AutoTokenizer", tokenizer, where, shared)
    elif modality == "text":
        tokenizer = _companion("AutoTokenizer", tokenizer, where, shared)
        if tokenizer is None and getattr(module, "_hf_peft_config_loaded", False):  # an adapter may leave it to its model
            tokenizer = _companion("AutoTokenizer", None, str(getattr(module.config, "_name_or_path", where)), {})
    else:
        processor = _companion("AutoImageProcessor" if modality == "image" else "AutoFeatureExtractor", processor, where, shared)
    label = name or os.path.basename(os.path.normpath(where))
    return _wrap(module, tokenizer, processor, forward, label, _folder(where, module))


def no_model(source: Any) -> str:
    """Why something that is neither a module nor a name cannot be loaded, and what to give instead."""
    if isinstance(source, type):
        return f"{source.__name__} is a class, which has no weights; give a model made of it, as in {source.__name__}.from_pretrained(...)"
    inside = next((name for name in ("model", "module", "_model", "network") if isinstance(getattr(source, name, None), nn.Module)), None)
    kind = type(source).__name__
    if inside is None:
        return f"a {kind} is no model; give a Hugging Face id, a folder, or the nn.Module itself"
    tokenizer = ", tokenizer=it.tokenizer" if getattr(source, "tokenizer", None) is not None else ""
    return f"a {kind} is not a model itself but holds one; give that: ix.load(it.{inside}{tokenizer})"


def _dtype(asked: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype that a word means; None for "auto" and for nothing."""
    if asked is None or isinstance(asked, torch.dtype) or asked == "auto":
        return asked if isinstance(asked, torch.dtype) else None
    found = getattr(torch, asked.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"dtype={asked!r} is no dtype of torch; nearest: {nearest(asked, _DTYPES)}")
    return found


def _needs(package: str, purpose: str) -> None:
    """Refuses what needs a package that none of our extras installs."""
    if find_spec(package) is None:
        raise MissingExtraError(f"{purpose} needs the package {package!r}, which is not installed. Run: pip install {package}")


def _nothing_left(given: dict[str, Any], what: str, when: str = "they act while a model is loaded from a name or a folder") -> None:
    """Refuses options that would do nothing."""
    if given:
        raise ModelError(
            f"{', '.join(given)} cannot be applied to {what}; {when}. Leave them out, or pass {'the name' if 'name' in when else 'one'}"
        )


def _moved(module: nn.Module, device: str | torch.device | None, kind: torch.dtype | None) -> nn.Module:
    if is_dispatched(module):
        words = ", ".join(f"{key}={str(value)!r}" for key, value in (("device", device), ("dtype", kind)) if value is not None)
        raise ModelError(f"{words}: the parts of {type(module).__name__} were placed by accelerate and stay where they are; leave it out")
    return module.to(device=device, dtype=kind)


def _from_pretrained(where: str, options: dict[str, Any]) -> nn.Module:
    """The class that the configuration names: a language model (also one that reads an encoder) with its head, anything else without."""
    import transformers

    keep = {key: value for key, value in options.items() if key in _SHARED}
    try:
        config = _configuration(where, keep)
        named = [str(cls) for cls in (getattr(config, "architectures", None) or [])]
        causal = any(cls.endswith(("ForCausalLM", "LMHeadModel")) for cls in named)
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        generating = next((cls for cls in named if cls.endswith("ForConditionalGeneration") and hasattr(transformers, cls)), None)
        if generating is not None:
            auto = getattr(transformers, generating)
        return auto.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        here = "the folder exists, but no model could be read from it" if os.path.isdir(where) else "there is no such folder here"
        raise ModelNotFoundError(
            f"cannot load a model from {where!r}: {here}; transformers says: {first}. "
            "Give a folder made by save_pretrained, an id that this machine can download or has in its cache, or the nn.Module itself"
        ) from error


def _configuration(where: str, options: dict[str, Any]) -> Any:
    """The configuration of the model; for an adapter, that of the model it is for."""
    from transformers import AutoConfig
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        return AutoConfig.from_pretrained(where, **options)
    except (OSError, ValueError):
        looked = {key: value for key, value in options.items() if key != "trust_remote_code"}
        file = find_adapter_config_file(where, **looked)
        if file is None:
            raise
        _needs("peft", f"loading the adapter {where!r}")
        with open(file, encoding="utf-8") as text:
            base = json.load(text)["base_model_name_or_path"]
        kept = {key: value for key, value in options.items() if key not in ("revision", "subfolder")}
        return AutoConfig.from_pretrained(base, **kept)


def _companion(auto: str, asked: Any, where: str, options: dict[str, Any]) -> Any:
    """A tokenizer or processor: the ready one, the one from the place that was asked for, or the model's own if it has one."""
    if asked is not None and not isinstance(asked, (str, os.PathLike)):
        return asked
    import transformers

    kinds = {"AutoTokenizer": "tokenizer", "AutoImageProcessor": "image processor", "AutoProcessor": "processor"}
    what = kinds.get(auto, "feature extractor")
    source = where if asked is None else os.fspath(asked)
    # From a folder without a vocabulary transformers makes an empty tokenizer, which knows no token, without a word.
    empty = auto == "AutoTokenizer" and os.path.isdir(source) and not any(_VOCABULARY.search(name) for name in os.listdir(source))
    problem = "the folder holds no tokenizer.json, vocabulary or sentencepiece model" if empty else ""
    if not empty:
        try:
            return getattr(transformers, auto).from_pretrained(source, **options)
        except Exception as error:  # each kind fails in its own way, and a model without one is fine unless it was asked for
            problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    if asked is not None:
        raise ModelNotFoundError(f"cannot load a {what} from {source!r}: {problem}")
    return None


def _folder(where: str, module: nn.Module) -> str | None:
    if os.path.isdir(where):
        return where
    commit = getattr(getattr(module, "config", None), "_commit_hash", None)
    if commit is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(where, "config.json", revision=commit)
    return os.path.dirname(path) if isinstance(path, str) else None


def _modality(module: nn.Module, tokenizer: Any, forward: Forward | None) -> str:
    named = getattr(module, "main_input_name", None) if getattr(module, "config", None) is not None else None
    names, _ = parameters_of(module) if forward is None else (set[str](), False)
    if named in _INPUTS and {_INPUTS[key] for key in names if key in _INPUTS} > {"text"}:
        return "multimodal"
    if named in _INPUTS:
        return _INPUTS[str(named)]
    if tokenizer is not None:
        return "text"
    return next((modality for key, modality in _INPUTS.items() if key in names), "tensor")


def _wrap(module: nn.Module, tokenizer: Any, processor: Any, forward: Forward | None, name: str | None, folder: str | None) -> Model:
    inside = core(module)
    config = getattr(inside, "config", None)
    stored = getattr(config, "_name_or_path", "") or ""
    label = name or os.path.basename(os.path.normpath(stored)) if stored else name or type(inside).__name__
    family = getattr(config, "model_type", None) or type(inside).__name__
    modality = _modality(module, tokenizer, forward)
    if tokenizer is None:
        tokenizer = getattr(processor, "tokenizer", None)
    return Model(
        module, name=label, modality=modality, family=family, tokenizer=tokenizer, processor=processor, forward=forward, folder=folder
    )
