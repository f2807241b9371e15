"""The tokenizer of a module that was given without one: the files beside its weights, where they lie on this machine."""

from __future__ import annotations

import os
from typing import Any

from inscape.models.loading import _companion
from inscape.models.model import Model


def own_tokenizer(model: Model) -> Any:
    """The tokenizer from the folder or the cached repository that the module's own configuration names; None where there is none.

    Nothing is downloaded, and one with more tokens than the model has embeddings is not taken: it belongs to another model.
    """
    where = str(getattr(model.config, "_name_or_path", "") or "")
    if not where:
        return None
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    commit = getattr(model.config, "_commit_hash", None)
    if commit is not None and not os.path.isdir(where):
        options["revision"] = commit
    found = _companion("AutoTokenizer", None, where, options)
    size = getattr(model.config, "vocab_size", None)
    return None if found is not None and isinstance(size, int) and len(found) > size else found
