"""`inscape health`: whether a model's layers look like those of models that work."""

from __future__ import annotations

from inscape.cli.output import Json, command_line, say

OUT_OF_RANGE = 4


def health(
    model: str,
    /,
    *,
    texts: str,
    sites: str = "blocks.*.resid_post",
    reference: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    out: str | None = None,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Read the vital signs of every layer, beside those of reference models. The exit code is 4 where a layer is out of range.

    Args:
        model: Hugging Face id or folder.
        texts: text file with one text a line, or a table with a column of texts.
        sites: the layers.
        reference: file with another reference set.
        revision: branch, tag or commit of the model.
        device: where the model runs.
        out: folder to save the readings in, as a result.
        seed: of the choice of rows.
        json: print JSON.
    """
    from inscape.models import load
    from inscape.reporting import health as read

    found = read(load(model, device=device, revision=revision), texts, sites=sites, reference=reference, seed=seed)
    if out is not None:
        found.result.save(out)
    rows = [
        {"site": one.site, "sign": one.sign.name, "value": one.value, "low": one.low, "high": one.high, "verdict": one.verdict}
        for one in found.readings
    ]
    payload = {"system": found.system, "healthy": found.healthy, "verdict": found.verdict, "readings": rows, "notes": list(found.notes)}
    payload |= {"reference": list(found.models), "out": out}
    following = command_line("report", out, to=f"{out}.html") if out else command_line("demo", model=model, texts=texts)
    say(str(found), payload, following=following, as_json=json)
    return 0 if found.healthy else OUT_OF_RANGE
