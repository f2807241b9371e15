"""What is left of a language model's predictions when a site is replaced by its reconstruction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.capturing import Stimuli, capture
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.intervals import row_of
from inscape.edits import Edit, edit
from inscape.edits.kinds.replace import Replace
from inscape.errors import DictionaryError, StimuliError
from inscape.models import Model, load
from inscape.models.sites import Site
from inscape.results import Result

_CONDITIONS = ("reconstruction", "zero", "mean")


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruct(Edit):
    """Puts a dictionary's reconstruction in the place of what a site holds."""

    dictionary: Any = None

    def describe(self, values: bool = False) -> dict[str, Any]:
        """The dictionary by kind, options and the SHA-256 of its directions."""
        tokens = self.tokens if isinstance(self.tokens, str) else repr(self.tokens)
        return {"kind": "reconstruct", "tokens": tokens, "dictionary": described(self.dictionary)}

    def __repr__(self) -> str:
        return f"reconstruct({self.dictionary!r})"

    def check(self, site: Site, width: int | None) -> None:
        """The dictionary must read and write rows of the site."""
        d, out = self.dictionary.d, self.dictionary.W_dec.shape[1]
        if width is not None and (d != width or out != width):
            raise DictionaryError(f"site {site.name!r} has {width} units, the dictionary reads {d} and writes {out}")

    def change(self, x: Tensor, offset: int) -> Tensor:
        """Every position by itself."""
        return self.dictionary.reconstruct(x.reshape(-1, x.shape[-1])).reshape(x.shape).to(x)


def described(dictionary: Dictionary) -> dict[str, Any]:
    """A dictionary by kind, options and the SHA-256 of its directions."""
    directions = dictionary.W_dec.detach().cpu().double().contiguous().numpy()
    return {**dictionary.recipe.describe(), "sha256": hashlib.sha256(directions.tobytes()).hexdigest()}


def loss_recovered(
    dictionary: Dictionary,
    model: Any,
    stimuli: Any,
    *,
    site: str | None = None,
    batch: int = 16,
    max_length: int | None = None,
    seed: int = 0,
) -> Result:
    """How much of a language model's loss survives when a site is replaced by what the dictionary makes of it.

    Args:
        dictionary: a fitted dictionary.
        model: the language model.
        stimuli: texts or token ids, as `ix.capture` takes them; best ones that were not trained on.
        site: where the reconstruction goes; default the site on which the dictionary was fitted.
        batch: stimuli that are run at a time; logits of all their tokens are in memory.
        max_length: the most tokens of a text.
        seed: seed of the intervals' groups.

    Returns:
        A `Result`: `ce` and `ce_reconstructed`, the mean cross-entropy of the next token without and with the dictionary;
        `ce_recovered_zero` = (CE_zero − CE_reconstructed) / (CE_zero − CE), where the site is set to 0, and `ce_recovered_mean`, where it
        is set to its mean (the stricter one); `kl`, the mean divergence from the model as it is; `kl_recovered_zero` and
        `kl_recovered_mean` = 1 − KL / KL_ablated. Intervals leave groups of stimuli out.

    Raises:
        DictionaryError: a transcoder or crosscoder, which does not give back the site that it reads; or no site is known.
        SiteNotFoundError: the model has no such site.
        StimuliError: no stimulus has two tokens.

    Example:
        >>> loss_recovered(dictionary, net, texts)    # doctest: +SKIP
    """
    if dictionary.recipe.sites != "one":
        raise DictionaryError(
            f"a {dictionary.recipe.kind} does not give back the site that it reads, so nothing can be put in its place; "
            "score(X, target=...) says how well it writes"
        )
    loaded: Model = load(model)
    place = site or dictionary.site
    if place is None:
        raise DictionaryError("the dictionary does not say where it was fitted; give site=")
    given = Stimuli.of(stimuli)
    parts = [
        Stimuli([given[i] for i in range(at, min(len(given), at + batch))], ids=given.ids[at : at + batch], kind=given.kind)
        for at in range(0, len(given), batch)
    ]
    options: dict[str, Any] = {"tokens": "all", "max_length": max_length, "progress": False}
    total, count = 0.0, 0
    for part in parts:
        rows = capture(loaded, part, place, **options)[place].torch().double()
        total, count = total + rows.sum(0), count + len(rows)
    changes: dict[str, Edit] = {
        "reconstruction": Reconstruct(dictionary=dictionary),
        "zero": Replace(0.0),
        "mean": Replace(torch.as_tensor(total / count).float()),
    }
    sums = np.concatenate([_sums(loaded, part, place, changes, options) for part in parts])
    if sums[:, 0].sum() == 0:
        raise StimuliError("no stimulus has two tokens, so there is no next token to predict")
    names = ["tokens", "ce", *(f"{what}_{name}" for name in _CONDITIONS for what in ("ce", "kl"))]
    at = {name: index for index, name in enumerate(names)}

    def ce(name: str) -> Any:
        return lambda s: (s[at[f"ce_{name}"]] - s[at["ce_reconstruction"]]) / (s[at[f"ce_{name}"]] - s[at["ce"]])

    def kl(name: str) -> Any:
        return lambda s: 1 - s[at["kl_reconstruction"]] / s[at[f"kl_{name}"]]

    values: dict[str, Any] = {
        "ce": lambda s: s[at["ce"]] / s[0],
        "ce_reconstructed": lambda s: s[at["ce_reconstruction"]] / s[0],
        "ce_recovered_zero": ce("zero"),
        "ce_recovered_mean": ce("mean"),
        "kl": lambda s: s[at["kl_reconstruction"]] / s[0],
        "kl_recovered_zero": kl("zero"),
        "kl_recovered_mean": kl("mean"),
    }
    shared = {"system": loaded.name, "site": place, "n": int(sums[:, 0].sum()), "d": dictionary.d, "label": repr(dictionary.recipe)}
    settings = {"verb": "dictionaries.loss_recovered", "recipe": dictionary.recipe.describe(), "stimuli": len(given), "seed": seed}
    return Result([{**shared, **row_of(name, of, sums, seed=seed)} for name, of in values.items()], settings=settings)


def _sums(model: Model, part: Stimuli, site: str, changes: dict[str, Edit], options: dict[str, Any]) -> np.ndarray:
    """Sums over the predicted tokens of each stimulus: [stimuli, columns]."""
    plain = capture(model, part, "logits", **options)["logits"]
    position, ids = plain.position, plain.column("token_id")
    follows = (plain.stimulus[1:] == plain.stimulus[:-1]) & (position[1:] == position[:-1] + 1)
    here = np.flatnonzero(follows)
    target, stimulus = torch.from_numpy(ids[here + 1].astype(np.int64)), plain.stimulus[here]
    expected = plain.torch()[torch.from_numpy(here)].double().log_softmax(1)
    columns = [torch.ones(len(here), dtype=torch.float64), -expected.gather(1, target[:, None])[:, 0]]
    for name in _CONDITIONS:
        with edit(model, site, changes[name]):
            logits = capture(model, part, "logits", **options)["logits"].torch()
        found = logits[torch.from_numpy(here)].double().log_softmax(1)
        columns += [-found.gather(1, target[:, None])[:, 0], (expected.exp() * (expected - found)).sum(1)]
    sums = np.zeros((len(part), len(columns)))
    np.add.at(sums, stimulus, torch.stack(columns, 1).numpy())
    return sums
