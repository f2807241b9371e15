"""Folders behind an address (`s3://…`, `gs://…`, `memory://…`), through fsspec."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlparse

from inscape.errors import MissingExtraError, StoreMismatchError, nearest, require

# Where a file is there as a whole or not at all, whatever happens while it is sent; elsewhere it gets its name only once it is complete.
_WHOLE_FILES = {"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos", "hf"}
TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class RemotePath:
    """A file or folder behind an address, with the few methods of `Path` that a store needs.

    Attributes:
        files: fsspec's file system.
        path: the place there.
        address: as the user wrote it, for messages.
    """

    files: Any
    path: str
    address: str

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.files, f"{self.path.rstrip('/')}/{name}", f"{self.address.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The folder around it."""
        return RemotePath(self.files, self.path.rstrip("/").rpartition("/")[0], self.address.rstrip("/").rpartition("/")[0])

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return bool(self.files.exists(self.path))

    def stat(self) -> SimpleNamespace:
        """Its size, as `st_size`."""
        return SimpleNamespace(st_size=int(self.files.info(self.path)["size"]))

    def read_bytes(self) -> bytes:
        """The whole file."""
        return bytes(self.files.cat_file(self.path))

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), fewer where the file ends before."""
        return bytes(self.files.cat_file(self.path, start=start, end=stop))

    def glob(self, pattern: str) -> list[RemotePath]:
        """The files that a pattern matches."""
        return [self._within(found) for found in self.files.glob(f"{self.path.rstrip('/')}/{pattern}")]

    def walk(self) -> list[str]:
        """Every file below this folder, by its path from here."""
        root = self.path.strip("/") + "/"
        return sorted(str(found).strip("/").removeprefix(root) for found in self.files.find(self.path)) if self.exists() else []

    def forget(self) -> None:
        """Drops what fsspec remembers of the folder: another process may have written there."""
        self.files.invalidate_cache()

    def put(self, local: Path) -> None:
        """Sends a file, which appears whole or not at all."""
        self.files.makedirs(self.parent.path, exist_ok=True)
        protocols = {self.files.protocol} if isinstance(self.files.protocol, str) else set(self.files.protocol)
        if protocols & _WHOLE_FILES:
            self.files.put_file(os.fspath(local), self.path)
            return
        sent = self.parent / f"{TEMPORARY}{self.name}"
        self.files.put_file(os.fspath(local), sent.path)
        self.files.mv(sent.path, self.path)

    def remove(self) -> None:
        """Deletes the file."""
        self.files.rm_file(self.path)

    def _within(self, found: Any) -> RemotePath:
        root = self.path.strip("/")
        return self / str(found).strip("/").removeprefix(root).strip("/")


Place = Path | RemotePath


def place_of(path: str | os.PathLike[str] | RemotePath) -> Place:
    """The folder that a path or an address means; `file://` is a folder here.

    Raises:
        MissingExtraError: the package for this kind of address is not installed.
        StoreMismatchError: there is no such kind of address.
    """
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if "://" not in text:
        if isinstance(path, Path):
            _no_address(text)
        return Path(text).expanduser()
    address = urlparse(text)
    if address.scheme == "file":
        return Path(unquote(address.path))
    require("fsspec", "remote", f"opening {text!r}")
    from fsspec import available_protocols
    from fsspec.core import url_to_fs

    try:
        files, where = url_to_fs(text)
    except ImportError as error:
        raise MissingExtraError(f"{text!r} needs a package that is not installed: {error}") from error
    except ValueError as error:
        kind = text.partition("://")[0]
        raise StoreMismatchError(
            f"{text!r} cannot be opened ({error}); nearest kinds of address: {nearest(kind, available_protocols())}"
        ) from error
    return RemotePath(files, str(where), text.rstrip("/"))


def _no_address(text: str) -> None:
    """Refuses a `Path` that was made of an address: it has lost one of the slashes, and would be a folder called "s3:"."""
    kind, colon, rest = text.partition(":/")
    if colon and len(kind) > 1 and "/" not in kind:
        from fsspec import available_protocols

        if kind in available_protocols():
            raise StoreMismatchError(f"{text!r} is the address {kind}://{rest} as a Path, which cannot hold one; give it as text")
