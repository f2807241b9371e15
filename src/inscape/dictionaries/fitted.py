"""`Dictionary`: a fitted dictionary of any kind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inscape.arrays import as_rows, as_tensor, row_blocks
from inscape.dictionaries.base import Recipe
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.rows import check_paired
from inscape.dictionaries.weights import rows_of
from inscape.errors import DictionaryError
from inscape.results import Result
from inscape.store import Store, View, view_of
from inscape.store.view import single

if TYPE_CHECKING:
    from inscape.dictionaries.reading.features import Feature, Features


class Dictionary:
    """Features of a site: directions that are written (W_dec), and what activates them (W_enc, b_enc).

    Made by `ix.decompose`, `Dictionary.load`, or from tensors of your own. Rows go in and come out as they were captured: every
    normalization of the training is folded into the tensors, except one that treats each row for itself (`per_row`), which no matrix holds.

    Attributes:
        recipe: the kind with its options, such as `TopK(width=8192, k=32)`.
        tensors: W_enc [d, m], W_dec [m, d], b_enc [m], b_dec [d], and what the kind adds (a threshold, say).
        info: where it comes from: system, site, rows, seed, training settings.
        per_row: None; or "layer_norm" or "length", where each row is normalized before it is read and the reconstruction is put back.

    Example:
        >>> codes = dictionary.encode(X)
        >>> dictionary.decode(codes).shape == X.shape
        True
    """

    def __init__(
        self, recipe: Recipe, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None, *, per_row: str | None = None
    ) -> None:
        self.recipe = recipe
        if per_row not in (None, "layer_norm", "length"):
            raise DictionaryError(f"per_row={per_row!r} is not known; give 'layer_norm', 'length' or None")
        self.per_row = per_row
        # One feature a row in memory, also of W_enc [d, m]: products then do not depend on where the tensors came from.
        self.tensors = {
            name: torch.as_tensor(value).T.contiguous().T if name == "W_enc" else torch.as_tensor(value).contiguous()
            for name, value in tensors.items()
        }
        self.info: dict[str, Any] = dict(info or {})
        self._features: Features | None = None
        recipe.check(self.tensors)

    @property
    def W_enc(self) -> Tensor:
        """[d, m]: column i is what activates feature i."""
        return self._part("W_enc")

    @property
    def W_dec(self) -> Tensor:
        """[m, d]: row i is the direction that feature i writes."""
        return self._part("W_dec")

    @property
    def b_enc(self) -> Tensor:
        """[m]: offset of the activations."""
        return self._part("b_enc")

    @property
    def b_dec(self) -> Tensor:
        """[d]: what is written when no feature is active."""
        return self._part("b_dec")

    @property
    def d(self) -> int:
        """Number of units that are read."""
        return self.recipe.reads(self.tensors)

    @property
    def m(self) -> int:
        """Number of features."""
        return self.recipe.width

    @property
    def site(self) -> str | None:
        """The site it was fitted on, where that is known."""
        return self.info.get("site")

    @torch.no_grad()
    def encode(self, X: Any) -> Codes:
        """The codes of rows.

        Args:
            X: array, tensor, view or store with one site, [n, d]; read block by block.

        Raises:
            DictionaryError: X has another number of units.
            DegenerateInputError: X is not [n, d], or holds NaN or infinity.
        """
        tensors = self.recipe.prepare(self.tensors, len(X) if hasattr(X, "__len__") else 1)
        return Codes.cat([self.recipe.encode(tensors, self._as_read(rows)) for rows in self._blocks(X)] or [self._nothing()])

    @torch.no_grad()
    def decode(self, codes: Codes | Any) -> Tensor:
        """Rows [n, d] from codes, or from a dense array of codes [n, m].

        Raises:
            DictionaryError: the codes have another width, or this kind also needs the rows (`reconstruct`).
        """
        if not isinstance(codes, Codes):
            codes = Codes.of(as_tensor(codes).to(self._dtype))
        if codes.width != self.m:
            raise DictionaryError(f"the codes have {codes.width} features, this dictionary has {self.m}")
        if self.per_row is not None and self.recipe.sites != "pair":
            raise DictionaryError(
                f"each row was normalized for itself ({self.per_row}), so codes alone do not give rows back; use reconstruct(X)"
            )
        return self.recipe.decode(self.tensors, codes)

    @torch.no_grad()
    def reconstruct(self, X: Any) -> Tensor:
        """What is left of rows [n, d] after encoding and decoding, [n, d]."""
        tensors = self.recipe.prepare(self.tensors, len(X) if hasattr(X, "__len__") else 1)
        parts = [self._rebuilt(rows, self.recipe.encode(tensors, self._as_read(rows))) for rows in self._blocks(X)]
        return torch.cat(parts) if parts else self.b_dec.new_zeros(0, self.b_dec.shape[0])

    def score(
        self, X: Any, *, target: Any = None, groups: Any = None, interval: str | int | None = "auto", level: float = 0.95, seed: int = 0
    ) -> Result:
        """How sparse and how faithful the dictionary is on rows, with intervals; see `docs/decompose.md` for each number.

        Args:
            X: array, tensor, view or store with one site, [n, d]; best rows that were not trained on.
            target: the rows to be written, for a transcoder.
            groups: rows of one group are dependent: a column of the stimuli, or one label per row or stimulus; default the stimulus.
            interval: "auto" or "jackknife" (delete-group, 32 groups), a number of groups, or None.
            level: coverage of the intervals.
            seed: seed of the groups.

        Returns:
            A `Result` with l0, fvu, cosine, shrinkage, the share of features alive on these rows, and more.
        """
        from inscape.dictionaries.scoring import score

        return score(self, X, target=target, groups=groups, interval=interval, level=level, seed=seed)

    def features(
        self,
        X: Any,
        stimuli: Any = None,
        *,
        model: Any = None,
        labels: Sequence[str] | None = None,
        context: tuple[int, int] = (14, 6),
        examples: int = 12,
        seed: int = 0,
    ) -> Features:
        """What each feature is active on: examples, words, neighbors, company, labels, logits, and a short description.

        Rows are encoded twice, block by block; memory grows with features and examples, not with rows times features. Afterwards
        `dictionary[i]` shows what was found.

        Args:
            X: view or store with one site (several for a crosscoder), best with one row per token (`tokens="all"`); or an array.
            stimuli: one text per stimulus, or a table with a column `text`, where the store has none; used if rows are whole stimuli.
            model: a language model whose unembedding gives direct logit weights; or a pair of a matrix [v, d] and v words.
            labels: columns of rows or stimuli to correlate with; default those with up to 24 different values, and numbers.
            context: tokens shown before and after an active one.
            examples: how many of each kind: largest, from quantiles, random, silent.
            seed: of what is drawn; the order of rows does not matter.

        Raises:
            DegenerateInputError: X has no rows, or holds NaN or infinity.
            DictionaryError: X has another number of units, or the model has no unembedding of this width.

        Example:
            >>> found = dictionary.features(X)
            >>> found.column("density").shape == (dictionary.m,)
            True
        """
        from inscape.dictionaries.reading.asking import ask

        self._features = ask(self, X, stimuli, model=model, labels=labels, context=context, examples=examples, seed=seed)
        return self._features

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:
        """Writes the dictionary into a folder.

        Args:
            path: the folder.
            format: None for `dictionary.json` and `dictionary.safetensors`, which hold every kind; or the name of another library's format,
                such as "sae_lens" or "sparsify" (`ix.dictionaries.registered_formats()`).

        Raises:
            DictionaryError: that format does not exist, or cannot hold this kind.
        """
        from inscape.dictionaries.exchange import write
        from inscape.dictionaries.saving import save

        return save(self, path) if format is None else write(self, path, format)

    @staticmethod
    def load(path: str | os.PathLike[str], *, scale: float | None = None) -> Dictionary:
        """Reads what `save` wrote, or what another library wrote: SAELens, sparsify, dictionary_learning, Gemma Scope, Llama Scope, ….

        The format is told by what the files hold, whatever they and their folder are called; every scale is folded into the tensors. Files
        are never run: of a pickle only tensors, numbers and text are read.

        Args:
            path: a folder, or the file with the weights.
            scale: what rows are to be multiplied by before they are read, for files of other libraries that expect it and do not say it.

        Raises:
            DictionaryError: there is no dictionary, or one of a format that is not known or newer.
            StoreCorruptError: a file of it is missing or damaged.
        """
        from inscape.dictionaries.saving import load

        return load(path, scale)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Dictionary:
        """The same dictionary with its tensors elsewhere, or in another dtype."""
        moved = {name: value.to(device=device, dtype=dtype) for name, value in self.tensors.items()}
        return Dictionary(self.recipe, moved, self.info, per_row=self.per_row)

    def using(self, **options: Any) -> Dictionary:
        """The same tensors under other options of the recipe, such as another number of active features.

        Example:
            >>> dictionary.using(k=4).recipe
            TopK(width=16, k=4)
        """
        try:
            return Dictionary(replace(self.recipe, **options), self.tensors, self.info, per_row=self.per_row)
        except TypeError as error:
            known = ", ".join(name for name in self.recipe.describe() if name != "kind")
            raise DictionaryError(f"{self.recipe.kind} has no option {', '.join(map(repr, options))}; it has {known}") from error

    def __len__(self) -> int:
        return self.m

    def __getitem__(self, index: int) -> Feature:
        """What is known of a feature: what `features(...)` found, or before that what its direction alone tells.

        Raises:
            IndexError: there is no such feature.
        """
        from inscape.dictionaries.reading.direction import known

        if not -self.m <= index < self.m:
            raise IndexError(f"there are {self.m} features (0 to {self.m - 1}); there is no feature {index}")
        return known(self, index % self.m) if self._features is None else self._features[index % self.m]

    def __repr__(self) -> str:
        where = f" of {self.info.get('system', '')}/{self.site}" if self.site else ""
        return f"Dictionary({self.recipe!r}{where}: {self.d} units → {self.m} features)"

    # ---- inside --------------------------------------------------------------------------------------------------

    def _as_read(self, rows: Tensor) -> Tensor:
        """Rows as the encoder takes them."""
        return rows if self.per_row is None else rows_of(self.per_row)(rows)[0]

    def _rebuilt(self, rows: Tensor, codes: Codes) -> Tensor:
        """What is written for rows as they were given."""
        if self.per_row is None:
            return self.recipe.rebuild(self.tensors, rows, codes)
        if self.recipe.sites == "pair":
            # A transcoder writes another site, which was never normalized, and its linear path takes rows as they are.
            return self.recipe.rebuild(self.tensors, rows, codes)
        read, back = rows_of(self.per_row)(rows)
        return back(self.recipe.rebuild(self.tensors, read, codes))

    @property
    def _dtype(self) -> torch.dtype:
        return self.tensors["W_dec"].dtype

    def _part(self, name: str) -> Tensor:
        found = self.tensors.get(name)
        found = self.recipe.implied(name, self.tensors) if found is None else found
        if found is None:
            raise DictionaryError(f"a dictionary of kind {self.recipe.kind} has no {name}; it has {', '.join(self.tensors)}")
        return found

    def _nothing(self) -> Codes:
        return Codes(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=self._dtype), torch.zeros(1, dtype=torch.int64), self.m)

    def _blocks(self, X: Any) -> Any:
        """Rows in the dtype of the tensors, some at a time."""
        if self.recipe.sites == "several":
            yield from self._side_by_side(X)
            return
        given = single([X[site] for site in X.sites]) if isinstance(X, Store) else X
        name = f"{given.system}/{given.site}" if isinstance(given, View) else "X"
        device = self.tensors["W_dec"].device
        for part in given.batches() if isinstance(given, View) else [given]:
            rows = as_rows(part, name, minimum=0)
            if rows.shape[1] != self.d:
                raise DictionaryError(f"{name} has {rows.shape[1]} units (shape {tuple(rows.shape)}), this dictionary reads {self.d}")
            for block in row_blocks(len(rows), max(self.d, self.m), 4):
                yield rows[block].to(device=device, dtype=self._dtype)

    def _side_by_side(self, X: Any) -> Any:
        """Rows of several sites in one, in the order in which they were fitted."""
        parts = [X[site] for site in X.sites] if isinstance(X, Store) else X
        if not isinstance(parts, (list, tuple)):
            parts = [parts]  # an array in which they stand side by side already
        views = [view_of(part, "X") for part in parts]
        check_paired(views)
        width = sum(view.d for view in views)
        if width != self.d:
            sizes = " + ".join(str(view.d) for view in views)
            raise DictionaryError(f"the sites to encode ({sizes}): together X has {width} units, this dictionary reads {self.d}")
        size = max(256, 2**23 // max(self.d, self.m))
        for at in range(0, views[0].n, size):
            rows = torch.cat([as_rows(view.read(at, at + size), f"{view.system}/{view.site}") for view in views], 1)
            yield rows.to(device=self.tensors["W_dec"].device, dtype=self._dtype)
