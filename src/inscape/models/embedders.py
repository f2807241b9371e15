"""Sentence encoders of `sentence-transformers`: their transformer with all of its sites, and the embedding that `encode` gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from inscape.errors import ModelError, ModelNotFoundError, nearest

# What a loader may be told about the embedding, as `encode` is.
OPTIONS = ("prompt", "prompt_name", "truncate_dim", "normalize_embeddings")
# Texts on which our reading must be that of the encoder itself.
_TRIALS = ("A test of tokens.", "  spaces on both sides ", "UPPER and lower Äé", "a\nline", "one two three four five six seven eight " * 9)


def is_embedder(module: Any) -> bool:
    """Whether a module is a `SentenceTransformer`, without importing the package."""
    names = {(base.__name__, base.__module__.partition(".")[0]) for base in type(module).__mro__}
    return ("SentenceTransformer", "sentence_transformers") in names


def is_embedder_folder(where: str) -> bool:
    """Whether a folder holds a sentence encoder that can be loaded here."""
    return os.path.isfile(os.path.join(where, "modules.json")) and find_spec("sentence_transformers") is not None


def load_embedder(where: str, options: Mapping[str, Any]) -> nn.Module:
    """The sentence encoder in a folder.

    Raises:
        ModelNotFoundError: it cannot be loaded.
        ModelError: an option is unknown.
    """
    from sentence_transformers import SentenceTransformer

    known = ("revision", "local_files_only", "token", "trust_remote_code", "model_kwargs", "tokenizer_kwargs", "config_kwargs", "backend")
    parts = {key: value for key, value in options.items() if key in ("dtype", "attn_implementation")}
    unknown = [key for key in options if key not in known and key not in parts]
    if unknown:
        raise ModelError(f"{unknown[0]}={options[unknown[0]]!r} is no option of a sentence encoder; nearest: {nearest(unknown[0], known)}")
    given = {key: value for key, value in options.items() if key in known}
    if parts:
        given["model_kwargs"] = {**dict(given.get("model_kwargs", {})), **parts}
    try:
        return SentenceTransformer(where, device="cpu", **given)
    except (OSError, ValueError, ImportError) as error:
        raise ModelNotFoundError(f"{where!r} has a modules.json, as sentence encoders do, and cannot be loaded: {error}") from error


class Embedder(nn.Module):
    """A sentence encoder that takes token ids and gives its embeddings [b, d], with the module `embedding` for what `encode` returns.

    Args:
        encoder: a `SentenceTransformer`.
        prompt: text put before each text.
        prompt_name: the name of one of the encoder's own prompts.
        truncate_dim: how many of the embedding's units are kept.
        normalize_embeddings: whether embeddings are scaled to length 1 at the end, as `encode` does on request.

    Raises:
        ModelError: the encoder does not read token ids, a prompt is unknown, or it reads texts in a way of its own.
    """

    main_input_name = "input_ids"
    # Canonical sites beside those of the transformer: name -> module path.
    named_outputs = {"embedding": "embedding"}  # noqa: RUF012
    # The others are found in the transformer alone: what comes behind it hands on a dictionary.
    canonical_within = "encoder.0"

    def __init__(
        self,
        encoder: Any,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        normalize_embeddings: bool = False,
    ) -> None:
        super().__init__()
        first = encoder[0] if len(encoder) else None
        network = getattr(first, "auto_model", None)
        if not isinstance(network, nn.Module) or getattr(encoder, "tokenizer", None) is None:
            raise ModelError(
                f"the sentence encoder begins with {type(first).__name__}, which has no transformer and tokenizer; only encoders that read "
                "token ids can be taken apart. Give its parts as modules, or its embeddings with Store.from_arrays"
            )
        self.encoder = encoder
        self.embedding = nn.Identity()
        self.config = getattr(network, "config", None)
        self.prompt = _prompt(encoder, prompt, prompt_name)
        self.truncate_dim = truncate_dim if truncate_dim is not None else encoder.truncate_dim
        self.normalize = bool(normalize_embeddings)
        self.tokenizer = PromptedTokenizer(encoder.tokenizer, self.prompt, encoder.max_seq_length)
        self._notes = _notes(encoder, self.prompt)
        _check_reading(encoder, self.tokenizer, self.prompt)
        if self.truncate_dim is not None and self.truncate_dim < 1:
            raise ModelError(f"truncate_dim={self.truncate_dim} leaves no unit; give 1 or more")

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The embeddings [b, d]."""
        return self._embed({"input_ids": input_ids, "attention_mask": attention_mask})

    def _embed(self, given: dict[str, Tensor | None]) -> Tensor:
        features: dict[str, Any] = {**self._notes, **{name: value for name, value in given.items() if value is not None}}
        if "attention_mask" not in features:  # pooling divides by it
            features["attention_mask"] = torch.ones_like(features["input_ids"])
        embedding: Tensor = self.encoder(features)["sentence_embedding"]
        if self.truncate_dim is not None:
            embedding = embedding[..., : self.truncate_dim]
        if self.normalize:
            embedding = nn.functional.normalize(embedding, p=2, dim=1)
        return self.embedding(embedding)

    def describe(self) -> dict[str, Any]:
        """What acts on the texts and behind the transformer, for the manifest."""
        parts = [(type(part).__name__, _settings(part)) for _, part in self.encoder.named_children()]
        return {
            "prompt": self.prompt,
            "truncate_dim": self.truncate_dim,
            "normalize_embeddings": self.normalize,
            "modules": [{"class": name, **({"settings": settings} if settings else {})} for name, settings in parts[1:]],
        }


class _Positioned(Embedder):
    """An encoder whose transformer takes position ids, which padding on the left needs."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None) -> Tensor:
        """The embeddings [b, d]."""
        return self._embed({"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids})


def embedder_of(encoder: Any, options: Mapping[str, Any]) -> Embedder:
    """The encoder as a model whose parts can be read."""
    from inscape.models.examples import parameters_of

    network = getattr(encoder[0], "auto_model", None) if len(encoder) else None
    names = parameters_of(network)[0] if isinstance(network, nn.Module) else set[str]()
    return (_Positioned if "position_ids" in names else Embedder)(encoder, **dict(options))


class PromptedTokenizer:
    """A tokenizer that puts a prompt before each text and knows the encoder's own limit; all else is the tokenizer's.

    Character offsets are those of the text without the prompt, whose tokens have none.
    """

    def __init__(self, tokenizer: Any, prompt: str, limit: int | None) -> None:
        object.__setattr__(self, "_tokenizer", tokenizer)
        object.__setattr__(self, "_prompt", prompt)
        object.__setattr__(self, "_limit", limit)

    @property
    def model_max_length(self) -> int:
        """The most tokens of a text with its prompt."""
        own = self._tokenizer.model_max_length
        return own if self._limit is None else min(own, self._limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tokenizer, name, value)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: str | Sequence[str], **options: Any) -> Any:
        """As the tokenizer, with the prompt before each text."""
        made = self._tokenizer(self._prompt + text if isinstance(text, str) else [self._prompt + each for each in text], **options)
        if self._prompt and "offset_mapping" in made:
            made["offset_mapping"] = _moved(made["offset_mapping"], len(self._prompt))
        return made


def _moved(offsets: Any, by: int) -> Any:
    if offsets and isinstance(offsets[0], tuple):
        return [(start - by, stop - by) if stop > by and start >= by else (0, max(0, stop - by)) for start, stop in offsets]
    return [_moved(each, by) for each in offsets]


def _prompt(encoder: Any, prompt: str | None, name: str | None) -> str:
    """The text before each text, as `encode` chooses it."""
    known: dict[str, str] = dict(getattr(encoder, "prompts", None) or {})
    if prompt is not None:
        if name is not None:
            raise ModelError(f"prompt={prompt!r} and prompt_name={name!r} both say what goes before each text; give one of them")
        return prompt
    if name is None:
        name = getattr(encoder, "default_prompt_name", None)
        return "" if name is None else known.get(name) or ""
    if name not in known:
        raise ModelError(f"prompt_name={name!r} is no prompt of this encoder; nearest: {nearest(name, known)}")
    return known[name] or ""


def _notes(encoder: Any, prompt: str) -> dict[str, Any]:
    """What the encoder hands to its modules beside tensors: how long the prompt is, for pooling that leaves it out."""
    return {name: value for name, value in _features(encoder, "a", prompt).items() if not isinstance(value, Tensor)}


def _features(encoder: Any, text: str, prompt: str) -> Any:
    """What the encoder itself makes of a text."""
    if hasattr(encoder, "preprocess"):
        return encoder.preprocess([text], prompt=prompt or None)
    return encoder.tokenize([prompt + text])


def _check_reading(encoder: Any, tokenizer: PromptedTokenizer, prompt: str) -> None:
    """Refuses an encoder that makes other tokens of a text than its tokenizer does."""
    for text in _TRIALS:
        expected = _features(encoder, text, prompt)["input_ids"][0].tolist()
        ids = list(tokenizer(text, truncation=True, max_length=tokenizer.model_max_length)["input_ids"])
        if ids != expected:
            raise ModelError(
                f"this sentence encoder reads texts in a way of its own: of {text[:30]!r} it makes {len(expected)} tokens "
                f"({expected[:6]} …) and its tokenizer {len(ids)} ({ids[:6]} …). Its embeddings can be taken with Store.from_arrays"
            )


def _settings(part: Any) -> dict[str, Any]:
    """The configuration of a module of the pipeline."""
    get = getattr(part, "get_config_dict", None)
    found = get() if callable(get) else {}
    plain = (str, int, float, bool, type(None))
    return {str(key): value if isinstance(value, plain) else str(value) for key, value in found.items()} if isinstance(found, dict) else {}
