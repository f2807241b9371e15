"""`inscape decompose`: a dictionary of one place in a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inscape.cli.arguments import read_dictionary
from inscape.cli.output import Json, command_line, say


def decompose(
    model: str,
    /,
    *,
    texts: str,
    site: str,
    width: int,
    out: str,
    kind: str = "TopK",
    rows: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
    normalize: str = "scale",
    column: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Fit a dictionary, such as a sparse autoencoder, to what a model holds at every token; run again after a stop, it resumes.

    Args:
        model: Hugging Face id or folder.
        texts: text file with one text a line, or a table with a column of texts.
        site: where to read; a glob that matches several gives a dictionary for each.
        width: number of features.
        out: folder for the dictionary, and for checkpoints until it is there.
        kind: what to fit, with options in brackets: TopK(k=16), JumpReLU(l0=20), PCA.
        rows: rows to train on, counted each time they are seen; by default every row once, but 500000 at least.
        batch: rows of a step.
        rate: highest learning rate.
        normalize: scale, or whiten, for the training.
        column: column of the table that holds the texts.
        revision: branch, tag or commit of the model.
        device: where the model runs.
        seed: of first values and the order of rows.
        json: print JSON.
    """
    from inscape.capturing import Stimuli
    from inscape.dictionaries import decompose as fit
    from inscape.models import load

    recipe = read_dictionary(kind, width)
    source = (load(model, device=device, revision=revision), Stimuli(texts, column=column), site)
    progress = False if json else None
    found = fit(source, recipe, rows, seed=seed, batch=batch, rate=rate, normalize=normalize, to=out, progress=progress)
    several = isinstance(found, list)
    made: list[Any] = found if several else [found]
    folders = [Path(out) / str(place) if several else Path(out) for place in range(len(made))]
    told = [_told(one, folder) for one, folder in zip(made, folders, strict=True)]
    text = "\n".join(f"{folder}: {one!r}{_in_words(about)}" for folder, one, about in zip(folders, made, told, strict=True))
    following = command_line("features", folders[0], model, texts=texts, column=column, revision=revision)
    say(text, {"dictionaries": told}, following=following, as_json=json)
    return 0


def _told(dictionary: Any, folder: Path) -> dict[str, Any]:
    info = dictionary.info
    last = (info.get("history") or [{}])[-1]
    told = {"folder": str(folder), "site": dictionary.site, "units": dictionary.d, "features": dictionary.m, "rows": info.get("rows")}
    return {**dictionary.recipe.describe(), **told, **{name: last[name] for name in ("fvu", "l0", "dead") if name in last}}


def _in_words(told: dict[str, Any]) -> str:
    """How the last batch of the training went."""
    if "fvu" not in told:
        return ""
    return f"\n  at the end of {told['rows']:,} rows: {told['fvu']:.3g} of the variance lost, {told['l0']:.3g} features active in a row"
