"""`inscape features`: what the features of a dictionary are active on."""

from __future__ import annotations

from typing import Any

from inscape.cli.output import Json, UsageError, command_line, say


def features(
    dictionary: str,
    model: str,
    /,
    *,
    texts: str,
    to: str = "features.html",
    out: str | None = None,
    show: int = 10,
    site: str | None = None,
    column: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Tell what each feature of a dictionary is active on, and write a page of examples.

    Args:
        dictionary: folder of a dictionary: one that decompose wrote, or one of another library.
        model: Hugging Face id or folder of the model that it was fitted on.
        texts: text file with one text a line, or a table with a column of texts.
        to: page to write.
        out: folder to save the features in.
        show: how many to print, those whose description tells best.
        site: where the dictionary reads; by default where it was fitted.
        column: column of the table that holds the texts.
        revision: branch, tag or commit of the model.
        device: where the model runs.
        seed: of the examples.
        json: print JSON.
    """
    from inscape.capturing import Stimuli
    from inscape.dictionaries import Dictionary
    from inscape.dictionaries.source import captured
    from inscape.models import load
    from inscape.reporting import report

    fitted = Dictionary.load(dictionary)
    sites = [site] if site else list(fitted.info.get("sites") or [])
    if not sites:
        raise UsageError(f"{dictionary} does not say where in a model it reads; give --site, such as --site blocks.2.resid_post")
    if fitted.recipe.sites != "several":
        sites = sites[:1]  # of a transcoder the site that it reads
    loaded = load(model, device=device, revision=revision)
    with captured((loaded, Stimuli(texts, column=column), sites), None, False if json else None) as store:
        rows = store if fitted.recipe.sites == "several" else store[store.sites[0]]
        found = fitted.features(rows, model=loaded if _has_logits(loaded) else None, seed=seed)
    if out is not None:
        found.save(out)
    page = report(found, to=to)
    best = _best(found, show)
    lines = [repr(found), *(f"  {row['feature']:>6}  {row['density']:7.2%}  {row['description']}" for row in best)]
    payload = {"dictionary": dictionary, "site": sites, "features": len(found), "best": best, "page": str(page), "out": out}
    say("\n".join([*lines, str(page)]), payload, following=command_line("report", out) if out else "", as_json=json)
    return 0


def _has_logits(model: Any) -> bool:
    """Whether directions of the residual stream have weights on the model's words."""
    from inscape.dictionaries.reading.logits import output_map
    from inscape.errors import DictionaryError

    try:
        output_map(model)
    except DictionaryError:
        return False
    return True


def _best(found: Any, count: int) -> list[dict[str, Any]]:
    """The features whose description tells best where they are active."""
    import numpy as np

    order = np.argsort(-np.nan_to_num(found.column("detection").astype(float), nan=-1.0), kind="stable")[: max(0, count)]
    chosen = found.table.select(["feature", "density", "detection", "description"]).take(order)
    return [row for row in chosen.to_pylist() if row["description"]]
