"""Where the features of a crosscoder live."""

from __future__ import annotations

import torch
from torch import Tensor

from inscape.dictionaries.directions import paired_cosines
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.intervals import mean_row
from inscape.errors import DictionaryError
from inscape.results import Result


def site_shares(dictionary: Dictionary, *, at: float = 0.9) -> Result:
    """How much of each feature lies in which site: layers of a model, or what one of two models has and the other lacks.

    A feature's share in a site is ‖W_dec block of the site‖ over the sum of these lengths, with rows of each site scaled to mean square 1.

    Args:
        dictionary: a fitted `Crosscoder`.
        at: share from which a feature counts as belonging to one site alone.

    Returns:
        A `Result` with, for each site, `site_share` (mean over features) and `exclusive` (share of features that lie in it alone); of two
        sites also `shared_cosine`, the mean cosine of the two directions of features that lie in both. `arrays["shares"]` is [m, sites].

    Raises:
        DictionaryError: the dictionary is no crosscoder.

    Example:
        >>> cross = ix.decompose([X, X], ix.dictionaries.Crosscoder(width=16, k=2), rows=2048)
        >>> round(site_shares(cross).value(measure="site_share", site="X0"), 1)
        0.5
    """
    blocks = site_directions(dictionary)
    lengths = torch.stack([torch.linalg.vector_norm(block, dim=1) for block in blocks], 1).double()
    shares = lengths / lengths.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    found = []
    for index, name in enumerate(dictionary.info["sites"]):
        for row in (mean_row("site_share", shares[:, index], bounds=(0, 1)), mean_row("exclusive", shares[:, index] >= at, bounds=(0, 1))):
            found.append({"site": name, "n": dictionary.m, "d": blocks[index].shape[1], **row})
    if len(blocks) == 2 and blocks[0].shape[1] == blocks[1].shape[1]:
        both = (shares < at).all(1)
        if bool(both.any()):
            cosines = paired_cosines(blocks[0][both], blocks[1][both]).double()
            found.append({"site": dictionary.info["sites"][0], "n": int(both.sum()), **mean_row("shared_cosine", cosines, bounds=(-1, 1))})
    settings = {"verb": "dictionaries.site_shares", "recipe": dictionary.recipe.describe(), "at": at}
    return Result(found, settings=settings, arrays={"shares": shares.numpy()})


def site_directions(dictionary: Dictionary) -> list[Tensor]:
    """The block of W_dec of each site, for rows of mean square 1."""
    widths, scales = dictionary.info.get("plan", {}).get("d"), dictionary.info.get("scales")
    if dictionary.recipe.sites != "several" or not widths or not scales:
        raise DictionaryError(f"expected a fitted Crosscoder, which reads several sites; got {dictionary!r}")
    return [block / scale for block, scale in zip(dictionary.W_dec.split(widths, 1), scales, strict=True)]
