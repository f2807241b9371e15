"""Text that every machine with Python already has: the source of the standard library, read as bytes."""

from __future__ import annotations

import sysconfig
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from inscape.errors import InscapeWarning, StimuliError

# Folders that hold tests, data tables and vendored packages: not the prose-like code a language model should see.
_SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages", "encodings", "ensurepip", "pydoc_data"}


class ByteTokenizer:
    """Text to bytes and back, callable like a Hugging Face tokenizer: ids 0-255 are bytes, 256 is padding, 257 starts a text.

    Args:
        bos: put the start token before every text.
        padding_side: "right" or "left".
        model_max_length: the most ids that the model reads, for those who cut texts; `None` when it has no limit.

    Example:
        >>> tokenizer = ByteTokenizer()
        >>> tokenizer(["def", "x"], padding=True)["input_ids"]
        [[100, 101, 102], [120, 256, 256]]
    """

    pad_token, bos_token = "<pad>", "<bos>"
    pad_token_id, bos_token_id = 256, 257
    eos_token_id = None
    vocab_size = 258
    is_fast = False

    def __init__(self, *, bos: bool = False, padding_side: str = "right", model_max_length: int | None = None) -> None:
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side is {padding_side!r}; expected 'left' or 'right'")
        self.bos = bos
        self.padding_side = padding_side
        self.name_or_path = "inscape/bytes"
        self.model_max_length = model_max_length
        self.all_special_ids = [self.pad_token_id, self.bos_token_id]
        self.all_special_tokens = [self.pad_token, self.bos_token]

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of one text."""
        return [self.bos_token_id] * (self.bos and add_special_tokens) + list(text.encode("utf-8"))

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        return_attention_mask: bool = True,
        return_special_tokens_mask: bool = False,
        verbose: bool = True,
    ) -> dict[str, Any]:
        """Ids, mask and, when asked for, which ids are special.

        Args:
            text: one text or several.
            padding: `True` or "longest" pads to the longest text, "max_length" to `max_length`.
            truncation: cut texts after `max_length` ids.
            max_length: the length for the two options above.
            return_tensors: "pt" for tensors, "np" for arrays, `None` for lists.
            add_special_tokens: obey `bos`.
            return_attention_mask: add "attention_mask": 1 on real ids.
            return_special_tokens_mask: add "special_tokens_mask": 1 on padding and start ids.
            verbose: warn when a text is longer than `model_max_length` and is not cut.
        """
        single = isinstance(text, str)
        rows = [self.encode(one, add_special_tokens) for one in ([text] if single else text)]
        if truncation and max_length is None:
            max_length = self.model_max_length
        if truncation and max_length is not None:
            rows = [row[:max_length] for row in rows]
        limit, longest = self.model_max_length, max((len(row) for row in rows), default=0)
        if verbose and limit is not None and longest > limit:
            warnings.warn(f"a text has {longest} ids, more than the {limit} that the model reads; pass truncation=True", InscapeWarning)
        length = max((len(row) for row in rows), default=0)
        if padding == "max_length" and max_length is not None:
            length = max_length
        missing = [max(0, length - len(row)) if padding else 0 for row in rows]
        mask = [self._padded([1] * len(row), gap, 0) for row, gap in zip(rows, missing, strict=True)]
        ids = [self._padded(row, gap, self.pad_token_id) for row, gap in zip(rows, missing, strict=True)]
        out: dict[str, Any] = {"input_ids": ids}
        if return_attention_mask:
            out["attention_mask"] = mask
        if return_special_tokens_mask:
            out["special_tokens_mask"] = [[int(i in self.all_special_ids) for i in row] for row in ids]
        if return_tensors is None:
            return {key: value[0] for key, value in out.items()} if single else out
        if len({len(row) for row in ids}) > 1:
            raise ValueError("texts of different length make no tensor; pass padding=True")
        make = torch.tensor if return_tensors == "pt" else np.asarray
        return {key: make(value) for key, value in out.items()}

    def _padded(self, row: list[int], gap: int, value: int) -> list[int]:
        return [value] * gap + row if self.padding_side == "left" else row + [value] * gap

    def decode(self, ids: Sequence[int] | Tensor, skip_special_tokens: bool = False) -> str:
        """The text of these ids; bytes that are no UTF-8 become the replacement character."""
        if not skip_special_tokens:
            return "".join(self._runs(ids))
        return bytes(i for i in map(int, ids) if i < 256).decode("utf-8", errors="replace")

    def _runs(self, ids: Sequence[int] | Tensor) -> list[str]:
        special = dict(zip(self.all_special_ids, self.all_special_tokens, strict=True))
        parts, run = [], bytearray()
        for i in map(int, ids):
            if i in special:
                parts += [run.decode("utf-8", errors="replace"), special[i]]
                run = bytearray()
            else:
                run.append(i)
        return [*parts, run.decode("utf-8", errors="replace")]

    def batch_decode(self, rows: Sequence[Sequence[int]] | Tensor, skip_special_tokens: bool = False) -> list[str]:
        """The texts of several rows of ids."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """Each id as its character; a byte outside ASCII as "<0xE2>"."""
        if isinstance(ids, int):
            if ids in self.all_special_ids:
                return self.all_special_tokens[self.all_special_ids.index(ids)]
            return chr(ids) if ids < 128 else f"<0x{ids:02X}>"
        return [self.convert_ids_to_tokens(int(i)) for i in ids]

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id."""
        return {self.convert_ids_to_tokens(i): i for i in range(self.vocab_size)}


@dataclass(frozen=True)
class Corpus:
    """Text as token ids, cut into a part to train on and a part held out.

    Attributes:
        train: ids; `standard_library` gives bytes (uint8).
        held_out: ids from files that `train` does not hold.
        files: names relative to the library's folder, in the order read.
        source: what the text is, in words.
    """

    train: Integer[Tensor, " n"]
    held_out: Integer[Tensor, " m"]
    files: tuple[str, ...]
    source: str

    def windows(self, count: int, length: int) -> list[str]:
        """`count` texts of `length` characters, evenly spread over the held-out part (only ASCII is in it, so a byte is a character).

        Raises:
            StimuliError: the windows would overlap, or the ids are no bytes.
        """
        if self.held_out.dtype != torch.uint8:
            raise StimuliError(f"only bytes (uint8) read as text, and these ids are {self.held_out.dtype}; cut windows of ids yourself")
        return [bytes(row.tolist()).decode("ascii") for row in spread(self.held_out, count, length)]


def spread(data: Integer[Tensor, " n"], count: int, length: int) -> Integer[Tensor, "{count} {length}"]:
    """`count` windows of `length` ids at even distances.

    Raises:
        StimuliError: the windows would overlap.
    """
    if count * length > len(data):
        raise StimuliError(f"{count} windows of {length} ids need {count * length}; the text has {len(data)}")
    starts = torch.linspace(0, len(data) - length, count).long()
    return torch.stack([data[start : start + length] for start in starts.tolist()])


def standard_library(max_bytes: int = 2_000_000, *, root: str | Path | None = None, held_out: float = 0.1) -> Corpus:
    """The source of the Python standard library of this interpreter, without its tests.

    Files are read in the order of a fixed hash of their names, so train and held-out text are alike, until `max_bytes`. Files with
    characters outside ASCII are left out. The text depends on the version of Python alone, which `Corpus.source` names.

    Args:
        max_bytes: size of both parts together.
        root: another folder of Python source.
        held_out: share of the bytes held out.

    Raises:
        StimuliError: the folder holds too little source (some embedded Pythons ship only bytecode).
    """
    folder = Path(root) if root is not None else Path(sysconfig.get_path("stdlib"))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.py") if not _SKIPPED & set(p.relative_to(folder).parts))
    names.sort(key=_name_hash)
    used, chunks, size = [], [], 0
    for name in names:
        data = (folder / name).read_bytes().replace(b"\r\n", b"\n")
        if not data or not data.isascii() or size >= max_bytes:
            continue
        chunk = data[: max_bytes - size]
        used.append(name)
        chunks.append(chunk)
        size += len(chunk)
    if size < 1000:
        raise StimuliError(
            f"only {size} bytes of Python source lie in the folder of the standard library; pass root= with a folder that holds .py files"
        )
    # Whole files are held out, from the end, until they reach the share asked for.
    cut, kept = size, len(chunks)
    while size - cut < held_out * size and kept > 1:
        kept -= 1
        cut -= len(chunks[kept])
    text = torch.frombuffer(bytearray(b"".join(chunks)), dtype=torch.uint8)
    version = ".".join(sysconfig.get_python_version().split(".")[:2])
    source = f"source of the Python {version} standard library" if root is None else "source files of a folder"
    return Corpus(text[:cut], text[cut:], tuple(used), f"{source}, {len(used)} files, {size:,} bytes")


def _name_hash(name: str) -> int:
    """FNV-1a: an order that mixes the packages and is the same everywhere."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value
