"""What a model does without some features of a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inscape.dictionaries.behavior import described
from inscape.dictionaries.fitted import Dictionary
from inscape.edits import Edit
from inscape.errors import DictionaryError
from inscape.models.sites import Site


@dataclass(frozen=True, eq=False, repr=False)
class AblateFeatures(Edit):
    """Takes away what some features of a dictionary write, and leaves the rest of the activations as it is."""

    dictionary: Any = None
    features: tuple[int, ...] = ()

    def describe(self, values: bool = False) -> dict[str, Any]:
        """The features, and the dictionary by kind, options and the SHA-256 of its directions."""
        tokens = self.tokens if isinstance(self.tokens, str) else repr(self.tokens)
        return {"kind": "ablate_features", "tokens": tokens, "features": list(self.features), "dictionary": described(self.dictionary)}

    def __repr__(self) -> str:
        return f"ablate_features({self.dictionary!r}, {list(self.features)})"

    def check(self, site: Site, width: int | None) -> None:
        """The dictionary must read rows of the site."""
        if width is not None and self.dictionary.d != width:
            raise DictionaryError(f"site {site.name!r} has {width} units, the dictionary reads {self.dictionary.d}")

    def change(self, x: Tensor, offset: int) -> Tensor:
        """`x − Σ zᵢ W_dec,ᵢ` over the features, with the codes z of this very `x`; every position by itself."""
        rows = x.reshape(-1, x.shape[-1])
        codes = self.dictionary.encode(rows.detach())
        taken = torch.isin(codes.indices, torch.tensor(self.features, dtype=torch.int64, device=codes.indices.device))
        directions = self.dictionary.W_dec[codes.indices[taken]]
        written = directions.new_zeros(rows.shape).index_add_(0, codes.rows[taken], codes.values[taken, None] * directions)
        return x - written.reshape(x.shape).to(x)


def ablate_features(dictionary: Dictionary, features: int | Sequence[int], *, tokens: Any = "all") -> Edit:
    """An edit that takes away what some features write, wherever they are active; what the dictionary misses stays.

    Args:
        dictionary: reads and writes the site that is edited.
        features: their numbers.
        tokens: which tokens it acts on, as for every edit.

    Returns:
        An `Edit` for `ix.edit`. It encodes whatever the site holds, so it works while generating and for any text.

    Raises:
        DictionaryError: there is no such feature, or the dictionary writes another site than it reads, joins several sites, or normalizes
            each row for itself.

    Example:
        >>> with ix.edit(model, dictionary.site, ix.dictionaries.ablate_features(dictionary, [3, 17])):    # doctest: +SKIP
        ...     model.generate("The film was")
    """
    chosen = (features,) if isinstance(features, int) else tuple(int(one) for one in features)
    bad = [one for one in chosen if not -dictionary.m <= one < dictionary.m]
    if bad:
        raise DictionaryError(f"there are {dictionary.m} features (0 to {dictionary.m - 1}); there is no feature {bad[0]}")
    if dictionary.recipe.sites != "one":
        raise DictionaryError(f"{dictionary.recipe.kind} does not write the one site that it reads, so none can be edited with it")
    if dictionary.per_row is not None:
        raise DictionaryError(f"each row is normalized for itself ({dictionary.per_row}), so no feature writes a fixed direction")
    return AblateFeatures(dictionary=dictionary, features=tuple(one % dictionary.m for one in chosen), tokens=tokens)
